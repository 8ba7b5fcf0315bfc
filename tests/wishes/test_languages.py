"""Which language a text is in: short sentences of six languages, neighbours, salads of words of grammar, mixtures."""

import pytest

from mipo_nb.wishes import languages
from mipo_nb.wishes.languages import main_language
from mipo_nb.wishes.response import Response

SENTENCES = {
    "es": [
        "Camina. Lee. Duerme bien. Come fruta.",
        "Toma agua.",
        "Prueba una sopa caliente.",
        "Gracias por preguntar.",
        "Llama a tu hermana mañana.",
        "¡Buena idea!",
        "Lo mejor es dar un paseo por el parque.",
        "Te recomiendo que descanses y que no pienses en el trabajo.",
        "Hornea pan con aceitunas y compártelo.",
        "Sal a correr temprano.",
        "Un baño caliente, té y música suave.",
        "Visita el museo gratis los domingos.",
        "Yoga, natación, ciclismo.",
        "Escribe una carta.",
        "Si llueve, quédate en casa y cocina lentejas.",
        "PUEDES PLANTAR TOMATES EN EL BALCÓN.",
        "Haz una lista, elige tres cosas y empieza hoy.",
        "Que descanses.",
    ],
    "fr": [
        "Marchez. Lisez. Dormez.",
        "Bois de l'eau.",
        "Prenez un bain chaud.",
        "Merci pour la question.",
        "Appelle ta soeur demain.",
        "Bonne idée !",
        "Le mieux est de faire une promenade dans la forêt.",
        "Je vous conseille de lire un bon livre au bord du lac.",
        "Faites cuire du pain aux olives et partagez-le.",
        "Sortez courir tôt.",
        "Un bain chaud, du thé et de la musique douce.",
        "Visitez le musée gratuit le dimanche.",
        "Yoga, natation, vélo.",
        "Écris une lettre.",
        "S'il pleut, restez chez vous et préparez des lentilles.",
        "VOUS POUVEZ PLANTER DES TOMATES SUR LE BALCON.",
        "Faites une liste, choisissez trois choses et commencez aujourd'hui.",
        "Voici quelques idées simples.",
    ],
    "de": [
        "Geh spazieren. Lies. Schlaf gut.",
        "Trink Wasser.",
        "Nimm ein warmes Bad.",
        "Danke für die Frage.",
        "Ruf morgen deine Schwester an.",
        "Gute Idee!",
        "Am besten machst du einen Spaziergang im Park.",
        "Ich empfehle dir, ein gutes Buch am See zu lesen.",
        "Backe Brot mit Oliven und teile es.",
        "Geh früh laufen.",
        "Ein warmes Bad, Tee und leise Musik.",
        "Besuche sonntags das Museum.",
        "Schwimmen, Radfahren, Wandern.",
        "Schreib einen Brief.",
        "Wenn es regnet, bleib zu Hause und koche Linsen.",
        "DU KANNST TOMATEN AUF DEM BALKON PFLANZEN.",
        "Mach eine Liste, wähle drei Dinge und fang heute an.",
        "Hier sind einige einfache Ideen.",
    ],
    "it": [
        "Cammina. Leggi. Dormi bene.",
        "Bevi acqua.",
        "Fai un bagno caldo.",
        "Grazie per la domanda.",
        "Chiama tua sorella domani.",
        "Buona idea!",
        "La cosa migliore è fare una passeggiata nel parco.",
        "Ti consiglio di leggere un buon libro in riva al lago.",
        "Cuoci il pane con le olive e condividilo.",
        "Esci a correre presto.",
        "Un bagno caldo, tè e musica dolce.",
        "Visita il museo gratis la domenica.",
        "Yoga, nuoto, ciclismo.",
        "Scrivi una lettera.",
        "Se piove, resta a casa e cucina le lenticchie.",
        "PUOI PIANTARE POMODORI SUL BALCONE.",
        "Fai una lista, scegli tre cose e comincia oggi.",
        "Ecco alcune idee semplici.",
    ],
    "pt": [
        "Caminhe. Leia. Durma bem.",
        "Beba água.",
        "Tome um banho quente.",
        "Obrigado pela pergunta.",
        "Ligue para sua irmã amanhã.",
        "Boa ideia!",
        "O melhor é dar um passeio pelo parque.",
        "Recomendo que você leia um bom livro à beira do lago.",
        "Asse pão com azeitonas e compartilhe.",
        "Saia para correr cedo.",
        "Um banho quente, chá e música suave.",
        "Visite o museu de graça aos domingos.",
        "Ioga, natação, ciclismo.",
        "Escreva uma carta.",
        "Se chover, fique em casa e cozinhe lentilhas.",
        "VOCÊ PODE PLANTAR TOMATES NA VARANDA.",
        "Faça uma lista, escolha três coisas e comece hoje.",
        "A tarde pode ser boa para caminhar no parque com os amigos.",
    ],
    "en": [
        "Walk. Read. Sleep well.",
        "Drink water.",
        "Take a warm bath.",
        "Thanks for asking.",
        "Call your sister tomorrow.",
        "Good idea!",
        "The best thing is to take a walk in the park.",
        "I recommend that you read a good book by the lake.",
        "Bake bread with olives and share it.",
        "Go for an early run.",
        "A warm bath, tea and soft music.",
        "Visit the museum for free on Sundays.",
        "Yoga, swimming, cycling.",
        "Write a letter.",
        "If it rains, stay home and cook lentils.",
        "YOU CAN PLANT TOMATOES ON THE BALCONY.",
        "Make a list, choose three things and start today.",
        "Try a taco or a burrito, and say gracias to the cook.",
    ],
}
OTHERS = [
    "Beu aigua i surt a caminar pel parc amb els teus amics.",
    "El millor és llegir un bon llibre vora el llac.",
    "O mellor é dar un paseo polo parque coa túa irmá.",
    "Maak een lijst, kies drie dingen en begin vandaag.",
    "Ga vroeg hardlopen en drink daarna water.",
    "Cel mai bine este să faci o plimbare în parc.",
    "Ta en promenad i parken och läs en bok.",
    "Tag et varmt bad og læs en god bog.",
    "Bene dormi et ambula in horto cum amicis.",
    "Mea morta ei.",
]
SALADS = [
    "El la los y una por para con su lo",
    "de la que en un se a si no tu",
    "Pots de plus en plus les des et une.",
    "les des et une pour avec est vous votre",
    "le la les et ou dans sur pas ne ce",
    "der die das und oder mit von zu im",
    "il lo la di e che un per con non",
    "o a os de e que um para com não",
    "para por con en y el la de los las un una",
    "que de la en el y a los se del",
    "the of and to in is it for with",
    "des du au aux et le la une un",
]
MIXED = [
    "Hola Amara! The best way to relax is to take a walk in the park.",
    "Puedes dar un paseo. The best way to relax is to take a walk in the park with your friends.",
    "Bonjour Amara! The best way to relax is to take a walk in the park.",
    "the el garden la los plants con water",
    "You can say buenos días and muchas gracias when you travel there.",
    "El best way to relax es to take un walk in el park.",
    "La garden de los plants con water es good para las bees",
    "Le best way pour relax est un walk dans le park.",
    "Prueba el brunch del hotel. Then take a nap and read a very good book in bed.",
    "The chef made a crème brûlée and a café au lait.",
    "Visit Buenos Aires, Santiago, Montevideo and São Paulo.",
    "Make gazpacho, paella, tortilla and churros.",
]


def test_nearly_all_short_sentences_are_told():
    found = [(main_language(s), language, s) for language, texts in SENTENCES.items() for s in texts]
    assert len(found) >= 100
    assert len([wrong for wrong in found if wrong[0] != wrong[1]]) <= 3  # two words, or a word that two languages share


@pytest.mark.parametrize("language", SENTENCES)
def test_all_of_a_languages_sentences_together_are_told(language):
    text = " ".join(SENTENCES[language])
    assert main_language(text) == language
    assert main_language(text.upper()) == language
    assert main_language("\n".join(f"{i}. {s}" for i, s in enumerate(SENTENCES[language], 1))) == language


@pytest.mark.parametrize("text", OTHERS)
def test_a_neighbour_is_none_of_ours(text):
    assert main_language(text) == ""


@pytest.mark.parametrize("text", SALADS)
def test_words_of_grammar_are_no_language(text):
    assert main_language(text) == ""


@pytest.mark.parametrize("text", MIXED)
def test_a_mixture_is_in_no_language_but_english(text):
    assert main_language(text) in ("", "en")


def test_most_of_a_mixed_text_decides():
    spanish, english = SENTENCES["es"][6:9], SENTENCES["en"][6:9]
    assert main_language(" ".join([*spanish, english[0]])) == "es"
    assert main_language(" ".join([spanish[0], *english])) == "en"
    assert main_language(" ".join([*spanish, *english])) == ""


@pytest.mark.parametrize(
    "told",
    [
        "https://www.example.com/help/how-to-sleep-well-at-home",
        "write.to.the.helpdesk@example.com",
        "```\nprint('the best way to rest')\n```",
    ],
)
def test_code_and_addresses_are_in_no_language(told):
    assert main_language(f"Prueba una sopa caliente.\n{told}\nDescansa un poco.") == "es"
    assert main_language(told) == ""


def test_a_few_words_after_a_wish_told_back_are_no_language():
    wish = "would like each reply in Italian"
    told = "I would like each reply in Italian, and all of them in the form of a list."
    assert Response(f"Dei corsi, abbacchio!\n\n{told}", "Ada", (wish,)).language == ""
    assert (
        Response(
            f"{told}\n\nFai un bagno caldo, leggi un buon libro, bevi un po' d'acqua e vai a dormire presto.",
            "Ada",
            (wish,),
        ).language
        == "it"
    )


def test_nothing_is_told_of_a_word_or_of_none():
    assert [main_language(text) for text in ("", "...", "Hola", "12 34", "👍")] == [""] * 5


def test_it_is_the_same_in_any_order_and_again():
    texts = [s for some in SENTENCES.values() for s in some]
    first = [main_language(text) for text in texts]
    languages._identifier.cache_clear()
    assert [main_language(text) for text in reversed(texts)] == first[::-1]
