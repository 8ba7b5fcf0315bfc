"""Wishes for a topic: each is a list of words, which may take an s, and of sayings in which they mean something else."""

from mipo_nb.wishes.kind import Kind
from mipo_nb.wishes.phrases import any_word_of, says


def _topic(asks, words, sayings, accepts, refuses):
    """The kind that one of these words occurs outside of these sayings."""
    return Kind(says(any_word_of(words), any_word_of(sayings)), "words", asks, accepts, refuses)


KINDS = {
    "mentions_weather": _topic(
        "the weather is mentioned",
        """weather, rain, rains, raining, rained, rainy, drizzle, drizzling, shower of rain, sunny, sunshine, sunlight, snow, snowing,
        snowy, snowfall, hail, sleet, storm, stormy, thunder, thunderstorm, lightning, wind, windy, breeze, breezy, gale, cloud, cloudy,
        overcast, fog, foggy, mist, misty, frost, frosty, ice and snow, heatwave, heat wave, humid, humidity, forecast, drought, chilly,
        freezing, hurricane, tornado, blizzard, monsoon, downpour, puddle, climate, hot day, cold day, warm day, hot days, cold days,
        warm days, in the heat, out in the cold, blue sky, blue skies, grey skies, gray skies, rainbow, mild day, temperature outside""",
        """brainstorm, under the weather, weather the storm, storm in a teacup, cloud storage, in the cloud, cloud computing, cloud service,
        cloud backup, on cloud nine, take a rain check, rain check, second wind, wind down, winds down, winding down, wind up, get wind of,
        snow white, snowed under, steal her thunder, break the ice, budget forecast, sales forecast, hail a cab, hail a taxi, wind instrument,
        like lightning, lightning fast, rainbow trout, calm before the storm, wind chime, mist the leaves, under a cloud""",
        ("If it rains, stay in and bake.", "Go out on a sunny morning.", "A cool breeze helps."),
        ("I feel under the weather.", "Keep a copy in the cloud.", "Wind down with a book.", "Take a walk."),
    ),
    "mentions_animals": _topic(
        "an animal is mentioned",
        """animal, pet, dog, puppy, puppies, cat, kitten, horse, pony, ponies, cow, calf, calves, sheep, lambs, goat, pig, piglet, hen, rooster,
        duck, ducklings, goose, geese, bird, sparrow, robin, crow, owl, eagle, hawk, swan, pigeon, parrot, penguin, seagull, butterfly,
        butterflies, bee, ant, beetle, ladybird, ladybug, spider, snail, worm, frog, toad, turtle, tortoise, snake, lizard, fox, wolf, wolves, bear,
        deer, rabbit, hare, squirrel, hedgehog, mouse, mice, hamster, guinea pig, badger, otter, seal, dolphin, whale, shark, elephant,
        lion, tiger, monkey, giraffe, zebra, kangaroo, goldfish, wildlife, creature""",
        """hot dog, dog-eared, dog days, cat nap, catnap, copy cat, teddy bear, bear in mind, bears in mind, bear with, computer mouse,
        wireless mouse, mouse click, mouse pad, white elephant, elephant in the room, wild goose chase, monkey wrench, horseradish, horsepower,
        bull market, lion's share, bear the cost, pet peeve, pet project, early bird, two birds with one stone, bird's-eye, spelling bee,
        crane operator, seal the, sealed, black sheep, cold turkey, piggy bank, guinea pigs for, rat race, snail mail, butterflies in your
        stomach, butterflies in my stomach, butterflies in his stomach, butterflies in her stomach, swan song, roast lamb, lamb chop, lamb stew, duck breast, roast duck, roast goose, goat cheese, goat's cheese, mouse over,
        cry wolf, lone wolf, duck under, crow's feet, tiger mom, busy bee, horse around, chicken soup""",
        ("Walk your neighbour's dog.", "Watch the birds in the garden.", "A cat would like that corner."),
        ("Eat a hot dog.", "Bear in mind that it rains.", "It was the elephant in the room.", "Take a walk."),
    ),
    "mentions_food": _topic(
        "something to eat is mentioned",
        """food, meal, breakfast, lunch, dinner, supper, snack, recipe, bread, toast, sandwich, soup, stew, salad, rice, pasta, noodle, pizza, potato,
        tomato, onion, garlic, carrot, bean, lentil, spinach, cabbage, mushroom, cheese, butter, yoghurt, yogurt, egg, omelette, omelet, pancake,
        porridge, oatmeal, cereal, fruit, apple, banana, orange juice, pear, berry, berries, strawberry, strawberries, cherry, cherries, lemon, grape,
        nut, almond, walnut, cake, cookie, biscuit, pie, muffin, croissant, chips, chocolate, honey, jam, ice cream, dessert, pudding, meat, chicken, beef, pork, fish,
        salmon, tuna, sausage, ham, curry, taco, burrito, dumpling, sushi, tofu, flour, sugar, olive, spice, vegetable, picnic, roast, casserole, eat, eats,
        eating, ate, eaten, delicious, tasty, dish""",
        """piece of cake, food for thought, bring home the bacon, apple of his eye, apple of her eye, spill the beans, spilled the beans, spilling the beans, bread and butter issue,
        couch potato, hot potato, big apple, in a nutshell, nuts and bolts, traffic jam, paper jam, jam session, apple watch, apple computer,
        easy as pie, pie chart, egg on, smart cookie, computer cookie, browser cookie, website cookie, compare apples, sour grapes, fish for
        compliments, cherry-pick, cherry picking, walk on eggshells, butter up, spice up, icing on the cake, sugar-coat, rice paper, ham radio,
        goldfish, bean bag, hard nut, carrot and stick, cream of the crop, chicken out, pear-shaped, cheese it, roast of, nut and bolt,
        eat my words, eat your words, eat into, eats into, eating into, eat away, eats away, eating away, dish soap,
        dish detergent, dish liquid, dish towel, dish rack, dish cloth, dish out, satellite dish, petri dish, wash the dishes,
        washing the dishes, do the dishes, doing the dishes, dirty dishes""",
        ("Cook a lentil soup.", "Bake bread with olives.", "Have breakfast outside."),
        ("It is a piece of cake.", "Avoid the traffic jam.", "That is food for thought.", "Take a walk."),
    ),
    "mentions_family": _topic(
        "family is mentioned",
        """family, families, mother, father, mum, mom, mommy, mummy, dad, daddy, parent, parents, grandmother, grandfather, grandma, grandpa,
        granny, nana, grandparent, grandson, granddaughter, grandchild, grandchildren, child, children, kid, kiddo, son, daughter, baby, babies,
        toddler, teenager, brother, sister, sibling, twin, aunt, auntie, uncle, niece, nephew, cousin, husband, wife, wives, spouse, in-law,
        mother-in-law, father-in-law, stepmother, stepfather, stepson, stepdaughter, relatives, loved ones, godmother, godfather,
        godchild, newborn, household, next of kin, ancestor""",
        """family name, mother nature, mother tongue, mother board, motherboard, father time, father christmas, parent company, kid gloves,
        child's play, baby steps, baby carrots, baby spinach, sister city, sister company, brother in arms, uncle sam, dutch uncle, old wives'
        tale, old wives' tales, twin bed, twin room, mother lode, big brother, just kidding, no kidding, baby blue, the kid in you,
        inner child, relatives of the rose, family of languages, brothers grimm, parent directory, brainchild, household name, household item,
        household chore, household cleaner, mother of all, son of a gun, teach a child, teach the child, teach
        your child to, teaching a child, taught a child, child can be taught, child's mind""",
        ("Ask your sister to join.", "Plan a day with the whole family.", "Call your grandmother."),
        ("It is child's play.", "Mother Nature knows.", "Start with baby steps.", "Take a walk."),
    ),
    "mentions_music": _topic(
        "music is mentioned",
        """music, musical, musician, song, melody, melodies, tune, rhythm, lullaby, lullabies, playlist, album, lyric, concert, gig, orchestra, choir,
        band, singer, sing, sings, singing, sang, hum, humming, whistle a, instrument, guitar, ukulele, organ plays, organ music, piano, violin, fiddle, cello, viola, flute, clarinet, saxophone,
        trumpet, trombone, drum, drumming, harp, accordion, banjo, harmonica, recorder, jazz, blues, opera, symphony, symphonies, sonata, concerto,
        folk dance, hip-hop, hip hop, reggae, rock and roll, rap, radio station, vinyl, karaoke, composer, conductor, mozart, beethoven, bach""",
        """rubber band, headband, wristband, elastic band, resistance band, band aid, band-aid, face the music, ring the changes, fine tune,
        fine-tune, fine-tuning, tune in, tune up, tune out, drum up, fit as a fiddle, for a song, feel the blues, baby blues, moody blues color, broadband,
        bands of color, vinyl floor, vinyl flooring, vinyl glove, swan song, soap opera, harp on, call the tune, blow your own trumpet, voice recorder,
        video recorder, piano key colour, sing its praises, sing his praises, sing her praises, bus conductor, train conductor, opera browser,
        change your tune, second fiddle, wrist band, music to my ears, sleep rhythm, circadian rhythm, rhythm of the human, rhythm of the body, rhythm of life,
        rhythm of the day, rap on, rap the, measuring instrument, surgical instrument, medical instrument, dental instrument, optical instrument,
        financial instrument, precision instrument, instrument panel, instrument cluster, blunt instrument""",
        ("Put on some music.", "Learn a song on the guitar.", "Go to a concert."),
        ("You must face the music.", "Use a resistance band.", "Fine-tune the plan.", "Take a walk."),
    ),
    "mentions_nature": _topic(
        "nature is mentioned",
        """nature, forest, wood, woods, woodland, tree, leaf, leaves, flower, wildflower, blossom, garden, plant, grass, meadow, field of, park, mountain,
        hill, valley, river, stream, brook, lake, pond, waterfall, sea, seaside, ocean, beach, shore, coast, island, sand, wave, desert, jungle,
        countryside, outdoors, hike, hiking, trail, landscape, scenery, sunset, sunrise, sky, moonlight, starlight, stars at night, soil, moss, fern,
        mushroom hunting, wildlife, bird, birdsong, butterfly, butterflies, bee, fresh air, wilderness, national park, nature reserve, cliff, canyon""",
        """second nature, human nature, by nature, nature of, power plant, car park, car parking, park the car, park your car, parking, wave at, wave to, sound
        wave, heat wave, leaf through, leaves the, leaves you, leaves no, leaves room, leaves me, turn over a new leaf, can't see the wood for the
        trees, family tree, shoe tree, live stream, streaming, stream a, stream the, video stream, theme park, water park, amusement park, sea of people, plant the
        idea, plant manager, over the hill, desert island disc, flower shop, garden hose, tip of the iceberg, wood glue, sand paper, sandpaper, sky-high,
        sky high, early bird, hill of beans, brain wave, blossoming career, kitchen island, island bench, knock on wood, touch wood, spelling bee,
        made of wood, piece of wood, pieces of wood, wood floor, microwave, sand the""",
        ("Walk through the forest.", "Sit by the river.", "Watch the sunset from a hill."),
        ("It is human nature.", "Find a car park.", "It became second nature.", "Take a nap."),
    ),
    "mentions_saving_money": _topic(
        "saving money is mentioned",
        """save money, saves money, saving money, saved money, save some money, save a lot of money, save a little money, save you money, save cash,
        save up, saving up, savings, save on, saves on, saving on, cheap, cheaper, cheapest, cheaply, inexpensive, affordable, low-cost, low cost,
        budget, budget-friendly, budgeting, thrifty, thrift store, thrift shop, frugal, frugally, frugality, bargain, discount, coupon, voucher,
        on sale, half price, half-price, second-hand, secondhand, second hand, used book, free of charge, for free, costs nothing, costs little,
        cost nothing, costs very little, cost less, costs less, cut costs, cutting costs, without spending, spend less, spending less, good value, value for
        money, save a few dollars, save a few, reduce your bills, lower your bills, cut your bills, economical, piggy bank, money-saving,
        money saving, won't cost, penny pinching, free entry, free admission, buy in bulk, flea market, reuse""",
        """cheap shot, cheap trick, daylight savings, daylight saving, bargaining chip, save up energy, a hard bargain, into the bargain, save on paper size,
        second hand of the, second hand on the clock, cheap thrills, more than you bargained for, budget airline crash, discounting the""",
        ("Buy it second-hand to save money.", "A library card is free of charge.", "Look for a discount."),
        ("Save the file first.", "Daylight saving starts soon.", "That was a cheap shot.", "Take a walk."),
    ),
}
