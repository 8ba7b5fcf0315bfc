"""Wishes that something be mentioned: science, dangers, warnings, an example, the order of steps."""

from mipo_nb.wishes.kind import Kind
from mipo_nb.wishes.phrases import any_of, says
from mipo_nb.wishes.sentences import words

_FIND = (
    r"(?:shows?|showed|shown|suggests?|suggested|found|finds?|indicates?|indicated|says?|tells?|reveals?|revealed|links?|linked|"
    r"confirms?|confirmed|proves?|proved|proven|supports?|points?|demonstrates?|demonstrated|reports?|reported|concludes?|concluded|agree|backs?)"
)
_SCIENCES = r"(?:physics|chemistry|biology|neuroscience|psychology|botany|physiology|genetics|nutrition science)"
_SCIENCE = any_of(
    r"\b(?:scientists?|scientific(?:ally)?|science)\b|\bresearchers?\b|\bclinical trials?\b|\bmeta-?analys[ei]s\b|\bpeer[\s-]reviewed\b",
    rf"\bresearch(?:ed)?\b(?=\s+(?:has|have|also|on|into|by|from|at|in|published|behind)?\s*{_FIND}\b)",
    r"\bresearch\b(?=\s+(?:on|into|by|from|at|in|published|behind)\b)",
    r"\b(?:recent|new|medical|academic|current|latest|of|by|that|in|the)\s+research\b(?!\s+(?:the|a|your|online)\b)",
    r"\bresearch[\s-](?:based|backed)\b",
    rf"(?<!\bhe )(?<!\bshe )(?<!\bwho )\b(?:study|studies|experiments?|trials?|surveys?|data(?=\s+(?:from|on|show|suggest)))\b(?=\s+(?:\w+\s+){{0,4}}?(?:has |have |also )?{_FIND}\b)",
    r"\b(?:recent|new|several|many|some|numerous|various|one|two|a|an|most|early|long-term|scientific)\s+(?:\w+\s+)?(?:study|studies|experiments?)\b"
    r"(?=\s+(?:by|in|of|from|at|on|published|into|with|conducted|involving|done)\b)",
    r"\b(?:according to|based on)\s+(?:(?:a|an|the|one|recent|several|some)\s+)*(?:study|studies|experiments?|trials?)\b",
    r"\bin\s+(?:a|an|one|recent|several|some|most|many)\s+(?:\w+\s+)?(?:study|studies|experiments?|trials?)\b|\bin (?:studies|experiments|trials)\b",
    rf"\bevidence\b(?=\s+(?:that|{_FIND})\b)|\b(?:scientific|strong|good|solid|growing|some|clear)\s+evidence\b|\bevidence[\s-]based\b",
    r"\b(?:has|have|been|was|were|is|are)\s+(?:been\s+)?(?:\w+ly\s+)?(?:shown|proven|found)\s+to\b",
    r"\b(?:psychologists|neuroscientists|biologists|physicists|nutritionists|epidemiologists|sociologists|physiologists|botanists)\b",
    rf"\b{_SCIENCES}\b(?=\s+(?:of|behind|{_FIND}|explains?|teaches)\b)|\b(?:university|journal) of \w+\b(?=[^.!?\n]{{0,60}}\b{_FIND}\b)",
)
_NO_SCIENCE = any_of(
    r"\bscience[\s-]+(?:fiction|museums?|fairs?|class(?:es)?|teachers?|projects?|kits?|books?|podcasts?|degree|student|club|cent(?:er|re)|lessons?|documentar\w+)\b",
    r"\b(?:rocket|computer|political|social|library|data|exact|domestic)\s+science\b|\bdown to a science\b|\bsci-fi\b|\bart and science\b",
    r"\b(?:do|doing|did|does)\s+(?:some|your|my|the|a (?:bit|little) of|more|enough|own|any)\s+(?:own\s+)?research\b|\bmarket research\b|\bresearch (?:the|your|local|online|a|some|different)\b",
    r"\b(?:(?:quick|case) study|study (?:group|room|guide|plan|time|hall|abroad|desk|skills?))\b",
)

_BODY = (
    r"(?:yourself|yourselves|himself|herself|themselves|(?:your|the|their|his|her)\s+(?:\w+\s+)?(?:hands?|eyes?|skin|head|feet|foot|knees?|"
    r"back|ears?|hearing|lungs?|face|fingers?|joints?|wrists?|neck|health|children|kids|pets?|body|spine|ankles?|family|lives|life))"
)
_DO = r"(?:climb|drive|lift|handle|step|walk|cross|pour|cut|carry|cycle|ride|swim|descend|move|slice|proceed)"
_SAFETY = any_of(
    r"\bunsafe(?:ly)?\b|\bsafety\b|\bsafe(?:ly|r|st)\b|\b(?:stay(?:s|ing)?|be(?:ing)?|is|are|was|it's|that's|keep(?:s|ing)?(?:\s+\w+){0,2}|feel|remain|"
    r"perfectly|completely|quite|how|food|more|very|too|as|not|always|isn't|aren't|get home|arrive)\s+safe\b",
    r"\bsafe\s+(?:to|for|from|distance|place|way|route|path|water|temperatures?|speed|environment|practices?|driving|handling|internal|foods?|"
    r"levels?|limits?|use|spot|side|ride|space|storage|and sound)\b",
    r"\bdanger(?:s|ous|ously)?\b|\bhazard(?:s|ous)?\b|\bperil(?:s|ous)?\b|\b(?:pre)?cautio(?:n|ns|us|usly|nary)\b|\brisk(?:s|y|ier|ing)?\b|\binjur\w+",
    r"\bharm(?:s|ful|ed|ing)?\b|\bwatch out\b|\blook out for\b|\bbeware\b|\bwarn(?:s|ing|ings|ed)?\b|\b(?:be|being|is|are|very|extra|more)\s+(?:\w+\s+)?careful\b",
    rf"\bcareful\s+(?:with|when|not|of|on|around|about|as)\b|\b{_DO}\s+(?:\w+\s+){{0,3}}carefully\b|\bcarefully\s+{_DO}\b",
    rf"\b(?:cut|burn|hurt|scald) (?:your|my|him|her)self\b|\bhurt(?:s|ing)?\s+{_BODY}|\bget(?:ting)?\s+(?:hurt|burn(?:ed|t)|sick|sunburn(?:ed|t)?)\b|\bburns?\s+(?:you\b|{_BODY})|\b(?:sunburns?|frostbite)\b|\b(?:cause|causes|avoid|prevent|against|from|severe|bad|serious|of)\s+burns\b",
    rf"\bprotect(?:s|ing|ion|ive)?\s+(?:{_BODY}|you\b|against|from|gear|glasses|goggles|gloves|clothing|equipment)|\bsunburn\b",
    r"\bwear(?:ing)?\s+(?:\w+\s+){0,3}(?:helmets?|gloves|goggles|life ?jackets?|seat ?belts?|masks?|sunscreen|reflective|ear ?plugs)\b|\bsunscreen\b",
    r"\bfirst[\s-]aid\b|\bin an emergency\b|\bemergency (?:number|services?|exit|room|contact|kit)\b|\bfire extinguishers?\b|\bsmoke (?:alarm|detector)s?\b",
    r"\bpoison(?:s|ous|ing)?\b|\btoxic\b|\ballerg(?:y|ies|ic|ens?)\b|\belectric(?:al)? shocks?\b|\bchok(?:e|ing)\b|\bslippery\b|\bslip(?:ping)? (?:on|and fall)\b",
    r"\bunattended\b|\bout of (?:the )?reach of\b|\baccidents?\b|\b(?:fatal|lethal|deadly)\b|\b(?:consult|see|ask)\s+(?:a|your)\s+(?:doctor|physician|medical)\b",
)
_NO_SAFETY = any_of(
    r"\b(?:a\s+)?safe\s+(?:bet|choice|guess|assumption|haven|pair of hands|deposit)\b|\bsafe\s+to\s+(?:say|assume|bet|conclude|call)\b|\bsafe travels\b|\bfail-?safe\b",
    r"\b(?:in|into|of|inside)\s+(?:a|the|your)\s+(?:\w+\s+)?safe\b(?!\s+(?:place|way|distance|spot|environment|manner|space|area|speed|and))",
    r"\bdangerously\s+(?:good|delicious|tasty|funny|close|cute|addictive)\b|\bdangerous liaisons\b|\bhazard a guess\b|\brisk[\s-]free\b|\b(?:ready|willing|eager|dare|not afraid)\s+to\s+take\s+(?:a\s+)?risks?\b|\brisk-taking\b",
    r"\bat (?:the )?risk of (?:sounding|repeating|being|boring|stating)\b|\b(?:throw|threw) caution to the wind\b",
    r"\b(?:no|little|what's the|any) harm (?:in|trying)\b|\bharmless\b|\bby accident\b|\bburn(?:s|ing)?\s+(?:calories|fat|off)\b|\bemergency fund\b",
    r"\b(?:a|more)\s+careful\s+(?:reader|reading|look|plan|choice|thinker|thought|consideration)\b|\bno danger\b|\bhappy accidents?\b",
    r"\bsorry\s+(?:to hear|about|for|that)\b[^.,;:!?\n]*",  # what has happened already
)

_WARNING = any_of(
    r"\bbeware\b|\bwatch out\b|\blook out for\b|\b(?:be|but) (?:\w+ )?(?:careful|cautious|wary|mindful of the)\b|\btake care (?:not|when|with|to avoid)\b",
    r"\bwarnings?\b|\bcaution\b|\bkeep (?:\w+ )?away from\b|\bmind the\b|\bsteer clear\b|\bstay away from\b|\bmake sure (?:not|you (?:do not|don't))\b",
    r"(?:^|[.!?:;,\n]\s*|\b(?:but|and|please|so)\s+)(?:do not|don't|never|avoid)\s+(?!worry|forget|hesitate|be (?:shy|afraid)|mind|feel|miss|give up|you)\w+",
    r"\b(?:can|could|may|might|will) (?:be (?:dangerous|harmful|toxic|poisonous|fatal)|cause (?:\w+ )?(?:harm|injury|burns|damage|fire)|hurt|burn you|explode)\b",
)
_NO_WARNING = any_of(r"\bwithout (?:a )?warning\b|\bcaution to the wind\b|\bhazard warning lights\b")

# The phrase itself, not "look for example sentences", and not where it is only named.
_EXAMPLE = any_of(
    r"(?<!look )(?<!looking )(?<!search )(?<!ask )(?<!asked )(?<!asking )(?<!thanks )(?<!words )(?<!word )(?<!phrase )(?<!saying )(?<!say )"
    r"(?<!expression )(?<![\"“'‘«])\bfor\s+example\b(?!\s*[\"”'’»])(?!\s+(?:sentences|texts|phrases)\b)"
)


def _for_example(response, value):
    """The phrase, with an example of at least one word before or after it."""
    found = _EXAMPLE.search(response.answer)
    return bool(found) and len(words(response.answer)) >= 3


_STEPS = (("first", "firstly"), ("then",), ("finally",))
_NO_STEP = frozenset("and or the a with but to words word then finally first firstly in order".split())
_NO_FIRST = any_of(
    r"\bfirst[\s-](?:aid|class|names?|floor|hand|degree|lady|born|language)\b|\bat first (?:sight|glance)\b"
)


def _first_then_finally(response, value):
    """The three words in this order, each with something said after it and before the next."""
    said = [word.lower() for word in words(_NO_FIRST.sub(" ", response.answer))]
    start = 0
    for forms in _STEPS:
        place = next((i for i in range(start, len(said)) if said[i] in forms), None)
        if place is None:
            return False
        start = next((i + 1 for i in range(place + 1, len(said)) if said[i] not in _NO_STEP), None)
        if start is None:
            return False
    return True


KINDS = {
    "mentions_science": Kind(
        says(_SCIENCE, _NO_SCIENCE),
        "words",
        "science or research is mentioned",
        (
            "Scientists say that naps help.",
            "An experiment showed that walking helps.",
            "There's evidence that naps help.",
        ),
        (
            "Listen to your conscience.",
            "I enjoy science fiction.",
            "He studies Spanish.",
            "Do some research before you buy.",
        ),
    ),
    "mentions_safety": Kind(
        says(_SAFETY, _NO_SAFETY),
        "words",
        "safety or danger is mentioned",
        ("Wear a helmet to stay safe.", "Be careful with the hot oil.", "Beware of the dog."),
        ("Save some money each month.", "It is a safe bet that you will like it.", "Keep the money in a safe."),
    ),
    "gives_a_warning": Kind(
        says(_WARNING, _NO_WARNING),
        "words",
        "a warning is given",
        ("Never leave the pan alone.", "Be careful with the hot oil.", "Wet stones can be dangerous."),
        ("Don't worry, it is easy.", "It rained without warning.", "Walk a little."),
    ),
    "for_example": Kind(
        _for_example,
        "words",
        "the words 'for example'",
        ("For example, you could bake bread.", "Try something new, for example pottery."),
        (
            "Follow the example of your friends.",
            "Look for example sentences in a book.",
            "For example, Ada wants an example.",
        ),
    ),
    "first_then_finally": Kind(
        _first_then_finally,
        "words",
        "first, then, finally, in this order",
        (
            "First, chop the onions. Then fry them. Finally, add the rice.",
            "Firstly wash it, then dry it, finally iron it.",
        ),
        (
            "First, chop the onions. Then fry them.",
            "Plan it in order: first, then, and finally.",
            "The firstborn eats, then sleeps, and finally wakes.",
        ),
    ),
}
