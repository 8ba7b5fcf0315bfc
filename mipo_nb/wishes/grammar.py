"""Words of grammar of six languages, by which a text says nothing, and those by which a user is said to wish."""

# Articles, pronouns, prepositions, conjunctions, auxiliaries, common adverbs. A text of these alone keeps no wish.
FUNCTION_WORDS = {
    "en": """the a an and or but nor so of to in on at by for from with without about as into onto over under between
        through during before after above below up down out off again than too very not no nor only own same just also
        if then else when while where why how what which who whom whose that this these those there here it its he him his
        she her hers they them their theirs we us our ours you your yours i me my mine myself yourself himself herself is
        are was were be been being am have has had having do does did doing will would can could should shall may might
        must some any each every all both few more most other such because until since though although whether it's i'm
        you're that's don't let's s t d ll re ve m behind upon via per""",
    "es": """el la los las un una unos unas lo al del de a ante bajo con contra desde durante en entre hacia hasta para por
        según sin sobre tras y e o u ni que si pero mas más sino aunque porque pues como cuando donde mientras yo tú él ella
        ello nosotros vosotros ellos ellas usted ustedes me te se nos os le les mí ti mi mis tu tus su sus nuestro nuestra
        este esta estos estas ese esa esos esas esto eso aquel aquella qué quién cuál cómo cuándo dónde quien cual es son soy
        eres era fue ser sea está están estar hay ha han he has había muy ya no sí también tampoco""",
    "fr": """le la les l un une des du de d au aux à en dans par pour sur sous avec sans chez vers entre contre depuis
        pendant avant après et ou mais donc or ni car que qu qui quoi dont où si comme quand lorsque parce puisque je j tu il
        elle on nous vous ils elles me m te t se s lui leur leurs y moi toi soi eux mon ma mes ton ta tes son sa ses notre nos
        votre vos ce c cet cette ces cela ça ne n pas plus moins très est sont suis es sommes êtes était être a ont ai as avez
        avons avait fait aussi""",
    "de": """der die das den dem des ein eine einen einem einer eines und oder aber denn sondern doch dass ob wenn weil als wie
        wo wann in im ins an am auf aus bei beim mit nach von vom vor zu zum zur über unter zwischen durch für gegen ohne um
        bis seit ich du er sie es wir ihr man mich dich sich uns euch mir dir ihm ihn ihnen mein meine dein deine deinen
        deiner sein seine ihre ihren unser unsere euer eure dieser diese dieses jeder jede jedes kein keine nicht nur auch
        noch schon sehr so da dann hier ist sind bin bist war sein habe hast hat haben wird werden kann kannst""",
    "it": """il lo la i gli le l un uno una del dello della dei degli delle al allo alla ai agli alle dal dallo dalla dai
        nel nello nella nei nelle sul sullo sulla sui di a da in con su per tra fra e ed o ma però che se come quando dove
        perché mentre anche non né io tu lui lei noi voi loro mi ti si ci vi lo ne me te sé mio mia tuo tua tuoi tue suo sua
        suoi sue nostro nostra questo questa questi queste quello quella chi cui è sono sei era essere ha hai ho hanno
        c'è molto più meno già""",
    "pt": """o a os as um uma uns umas ao aos à às do da dos das no na nos nas num numa pelo pela pelos pelas de em com sem
        para por sobre entre até desde e ou mas nem que se como quando onde porque pois enquanto eu tu ele ela nós vós eles
        elas você vocês me te se nos lhe lhes mim ti meu minha teu tua seu sua seus suas nosso nossa este esta esse essa isto
        isso aquele aquela quem qual é são sou era foi ser está estão estar há tem têm não sim também já muito mais menos""",
}
FUNCTION_WORDS = {language: frozenset(listed.split()) for language, listed in FUNCTION_WORDS.items()}

# After one of these stands no other of them, but now and then by chance ("die die", "a la una").
ARTICLES = {
    "en": "the a an",
    "es": "el la los las un una unos unas del al",
    "fr": "le la les un une des du au aux",
    "de": "der die das den dem des ein eine einen einem einer eines im am zum zur",
    "it": "il lo la i gli le un uno una del della dei degli delle al alla nel nella",
    "pt": "o a os as um uma uns umas do da dos das no na nos nas pelo pela",
}
ARTICLES = {language: frozenset(listed.split()) for language, listed in ARTICLES.items()}

# Patterns for folded text: who wishes besides the user's name, and how in languages other than English.
THE_USER = r"(?:the|this|our) (?:user|person)(?: (?:that |whom? )?(?:i am|we are) (?:talking|speaking) to)?|el usuario|la usuaria|l'utilisat(?:eur|rice)|(?:der|die) nutzer(?:in)?|l'utente|o usuario"
WISHES = (
    r"(?:quiere|desea|prefiere|pide|necesita|busca|queria|le (?:gusta|gustaria|interesa|encanta)|veut|voudrait|souhaite|"
    r"prefere|aime|aimerait|demande|desire|cherche|mochte|wunscht|bevorzugt|mag|braucht|vuole|vorrebbe|desidera|preferisce|"
    r"chiede|quer|deseja|gosta|pede|gostaria)"
)
