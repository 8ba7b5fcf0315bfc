"""Rules of checkable preferences on natural texts, several that keep and several that break each kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import preferences

NAME = "Amara"
VALUE = {"at_most_words": 12}

KEPT = {
    "at_most_words": [
        "Take a warm bath and go to bed early.",
        "Soup.",
        "Yes, it's the children's favourite: try a long walk by the river.",
        "- Rest\n- Drink water\n- Call a friend",
    ],
    "numbered_list": [
        "1. Boil the rice.\n2. Fry the onions.\n3. Mix both.",
        "Here you go:\n\n1) Read a book.\n2) Take a nap.",
        "Two ideas:\n  1. **Swim** in the lake.\n  2. **Cycle** along the canal.\nEnjoy!",
        "10. Paint a wall.\n11. Build a shelf.",
    ],
    "dash_list": [
        "- Bake bread\n- Plant basil",
        "Some ideas:\n\n- Go for a walk.\n- Visit a museum.\n- Cook a stew.",
        "– Take a nap\n– Drink tea",
        "Try these:\n  - Yoga, for your back\n  - Swimming",
    ],
    "ends_with_question": [
        "Try a stew with beans. Do you like beans?",
        "What would you enjoy most?\n",
        "You could read a novel. Have you heard of “What Is to Be Done?”",
        "How about a walk by the sea (or would you rather stay in?)",
    ],
    "calls_by_name": [
        "Amara, try a warm bath.",
        "That depends on your mood, Amara! A walk helps.",
        "I would say this is Amara's kind of film.",
        "AMARA: here is an idea.",
    ],
    "metric_units": [
        "Walk 3 km along the river.",
        "Add 250 g of flour and 1.5 litres of water.",
        "Bake it at 180 °C until golden.",
        "A plant needs a pot of thirty or so, say 30cm, and half a litre of water.",
    ],
    "no_exclamation": [
        "Take a walk. It clears the head.",
        "Would you like some soup?",
        "- Rest\n- Drink water",
        "Sí, claro.",
    ],
    "mentions_cost": [
        "A used bike costs about $120.",
        "You can do it for under $ 5 at home.",
        "A ticket is 20 dollars.",
        "It will set you back a few dollars.",
    ],
    "starts_with_hello": [
        "Hello! Try a walk.",
        "Hello Amara, how are you?",
        "hello, here is an idea",
        '"Hello there," as they say.',
    ],
    "in_spanish": [
        "Puedes preparar una sopa de verduras con un poco de arroz para la cena.",
        "Lo mejor es dar un paseo por el parque y leer un libro.",
        "Te recomiendo que descanses y que no pienses en el trabajo.",
        "¡Claro! Si no llueve, ve a la playa con tu familia o con los amigos del barrio.",
    ],
    "for_example": [
        "Try something new, for example pottery.",
        "For example, you could bake bread.",
        "A hobby (for example: chess) helps.",
        "You could learn a craft.\n\nFor example:\n- knitting",
    ],
    "mentions_science": [
        "Scientists say that naps help.",
        "Research shows that walking lifts the mood.",
        "Several studies found that reading before bed helps.",
        "It is backed by science.",
    ],
    "mentions_time": [
        "Boil the eggs for 8 minutes.",
        "Take half an hour for yourself.",
        "It takes an hour or so.",
        "Walk for 20-30 minutes every day.",
    ],
    "mentions_safety": [
        "Wear a helmet to stay safe.",
        "Be careful with the hot oil.",
        "The ladder is dangerous when wet.",
        "Stretch first, to avoid injuries.",
    ],
    "in_french": [
        "Vous pouvez préparer une soupe de légumes avec un peu de riz pour le dîner.",
        "Je vous conseille de lire un bon livre dans le jardin ou au bord du lac.",
        "Le mieux est de faire une promenade avec votre chien dans la forêt.",
        "Il ne faut pas oublier les vitamines : ce sont des alliées pour vous et votre famille.",
    ],
    "first_then_finally": [
        "First, chop the onions. Then fry them. Finally, add the rice.",
        "Firstly wash it, then dry it, and finally iron it.",
        "1. First boil water\n2. Then add tea\n3. Finally, pour",
        "At first it feels slow, then it gets easier, and you finally enjoy it.",
    ],
}

BROKEN = {
    "at_most_words": [
        "Take a warm bath, read a few pages of a novel and go to bed early tonight.",
        "- Rest\n- Drink water\n- Call a friend\n- Cook a good soup with beans and rice",
        "",
        "One two three four five six seven eight nine ten eleven twelve thirteen",
    ],
    "numbered_list": [
        "- Boil the rice.\n- Fry the onions.",
        "Boil the rice, then fry 2 onions.",
        "1. There is only one thing to do.",
        "You need 1. rice and 2. onions.",
    ],
    "dash_list": [
        "1. Bake bread\n2. Plant basil",
        "Bake a well-known bread - it is easy - and share it.",
        "- There is only one thing to do.",
        "* Bake bread\n* Plant basil",
    ],
    "ends_with_question": [
        "Do you like beans? Then try a stew.",
        "Try a stew with beans.",
        "What about a walk? Enjoy it!",
        "",
    ],
    "calls_by_name": [
        "Try a warm bath.",
        "Hello Amaranta, try a warm bath.",
        "Ask your friend Tamara.",
        "Dear user, try a walk.",
    ],
    "metric_units": [
        "Walk three miles along the river.",
        "Add 200 g (about 7 ounces) of flour.",
        "Walk for 20 minutes in the park.",
        "A metric system has litres and grams.",
        "Bake it at 180 °C (350 °F).",
    ],
    "no_exclamation": ["Take a walk! It clears the head.", "Great!!", "Hello! How are you?", "¡Claro!", "   "],
    "mentions_cost": [
        "A used bike is cheap.",
        "It costs 20 euros.",
        "Save some money each month.",
        "Use the $HOME folder for it.",
    ],
    "starts_with_hello": ["Hi there! Try a walk.", "Dear Amara, hello!", "Well, hello.", "Hellos are nice.", ""],
    "in_spanish": [
        "You can make a vegetable soup with a little rice for dinner.",
        "Try a taco or a burrito, and say gracias to the cook.",
        "Ein guter Film und eine Decke sind für den Abend am besten.",
        "Hola Amara! The best way to relax is to take a walk in the park.",
        "",
    ],
    "for_example": [
        "Follow the example of your friends.",
        "You could, for instance, bake bread.",
        "Examples are pottery and chess.",
        "Set a good example for your children.",
    ],
    "mentions_science": [
        "Take a walk, it clears the head.",
        "Listen to your conscience.",
        "Many people say that naps help.",
        "Put a desk in the study.",
    ],
    "mentions_time": [
        "Boil the eggs until they are hard.",
        "Come back at 5 o'clock.",
        "Do it in the evening, two or three days a week.",
        "Enjoy every minute of it.",
    ],
    "mentions_safety": [
        "Save some money each month.",
        "Take a walk in the park.",
        "Take care of your plants.",
        "A brisk walk helps.",
    ],
    "in_french": [
        "You can make a vegetable soup with a little rice for dinner.",
        "Try a croissant from a patisserie, it is the best in town.",
        "Ein guter Film und eine Decke sind am Abend gemütlich.",
        "Bonjour Amara! The best way to relax is to take a walk in the park.",
        "",
    ],
    "first_then_finally": [
        "First, chop the onions. Then fry them.",
        "Finally, add rice. Then stir. First, though, wash it.",
        "Chop the onions, fry them, add the rice.",
        "The firstborn eats, then sleeps, and finally wakes.",
    ],
}


def keeps(kind, text, name=NAME):
    return preferences.keeps(text, {"kind": kind, "value": VALUE.get(kind)}, name)


def cases(table):
    return [pytest.param(kind, text, id=f"{kind}-{i}") for kind, texts in table.items() for i, text in enumerate(texts)]


def test_every_kind_has_examples_of_both_sorts():
    assert set(KEPT) == set(BROKEN) == set(preferences.KINDS)
    assert min(map(len, [*KEPT.values(), *BROKEN.values()])) >= 4


@pytest.mark.parametrize("kind, text", cases(KEPT))
def test_natural_texts_that_keep_a_preference(kind, text):
    assert keeps(kind, text) is True


@pytest.mark.parametrize("kind, text", cases(BROKEN))
def test_natural_texts_that_break_a_preference(kind, text):
    assert keeps(kind, text) is False


MISJUDGED_AS_KEPT = [
    (
        "in_french",
        "Puedes preparar una sopa de verduras con un poco de arroz. Es fácil y lleva poco tiempo en la cocina.",
    ),
    ("in_french", "Te recomiendo la playa de San Juan, que es tranquila. Lleva un libro para leer en la sombra."),
    (
        "in_spanish",
        "Si tu es fatigué, prends un bain et va te coucher tôt. La nuit, pose ton téléphone et lis en silence.",
    ),
    ("metric_units", "Drive 50 km at 60mph."),
    ("metric_units", "It is 2 m (6 ft) tall."),
    ("metric_units", "Switch off your 5G phone."),
]
MISJUDGED_AS_BROKEN = [
    ("metric_units", "Walk 5 km and then rest your feet."),
    ("metric_units", "A room of 20 square metres is enough."),
    ("mentions_cost", "It costs one dollar."),
    ("mentions_science", "A study in Nature found that naps help."),
    ("mentions_time", "Sleep seven hours a night."),
    ("mentions_time", "It takes a couple of hours."),
    ("mentions_safety", "Be cautious on the ice."),
    ("mentions_safety", "That is the safest route."),
    ("first_then_finally", "If you have time, then do this: first boil water, then add tea, finally pour."),
    ("ends_with_question", "What do you think? 😊"),
    ("in_french", "C'est l'heure d'aller dormir : ferme les yeux, respire doucement, compte jusqu'à cent."),
]


@pytest.mark.parametrize("kind, text", MISJUDGED_AS_KEPT)
def test_texts_that_a_rule_should_refuse(kind, text):
    assert not keeps(kind, text)


@pytest.mark.parametrize("kind, text", MISJUDGED_AS_BROKEN)
def test_texts_that_a_rule_should_accept(kind, text):
    assert keeps(kind, text)


def test_nobody_is_called_by_a_name_that_is_not_known():
    assert not keeps("calls_by_name", "Drink some water.", name="")


@given(st.text(max_size=60), st.text(min_size=1, max_size=8))
def test_every_rule_judges_any_text_with_any_name(text, name):
    assert {type(keeps(kind, text, name)) for kind in preferences.KINDS} == {bool}


@given(
    st.lists(st.from_regex(r"[a-z]{1,6}('[a-z]{1,3})?", fullmatch=True), min_size=1, max_size=20), st.integers(1, 25)
)
def test_the_word_limit_counts_words(found, limit):
    text = ", ".join(found) + "."
    assert preferences.words(text) == found
    kept = preferences.keeps(text, {"kind": "at_most_words", "value": limit})
    assert kept == (len(found) <= limit)


@pytest.mark.parametrize("kind", sorted(set(preferences.KINDS) - {"at_most_words", "calls_by_name"}))
def test_only_a_name_preference_depends_on_the_name(kind):
    for text in [*KEPT[kind], *BROKEN[kind]]:
        assert keeps(kind, text, "Amara") == keeps(kind, text, "Zoë")


def test_a_name_is_taken_letter_by_letter():
    assert keeps("calls_by_name", "Good idea, Jin-ho.", "Jin-ho")
    assert keeps("calls_by_name", "Bonjour Zoë, ça va ?", "Zoë")
    assert not keeps("calls_by_name", "Good idea, Jinxho.", "Jin.ho")


def test_an_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        preferences.keeps("text", {"kind": "rhymes", "value": None})


def test_checkable_keeps_those_with_a_kind():
    rows = [{"text": "a", "kind": None}, {"text": "b", "kind": "dash_list"}, {"text": "c"}]
    assert preferences.checkable(rows) == [rows[1]]
    assert preferences.checkable(None) == []


def test_at_least_three_kinds_are_kept_for_unseen_users():
    unseen = {kind for kind, entry in preferences.KINDS.items() if not entry.seen}
    assert len(unseen) >= 3
    assert all(entry.asks for entry in preferences.KINDS.values())
