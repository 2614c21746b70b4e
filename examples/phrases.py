"""English phrases and their French translations, of which it is known which words belong together.

A grammar writes both sides at once, of parts that say the same: where each of the two is one word
the link is sure, and where one side has more words any of them may belong to any of the other::

    the small red house         la petite maison rouge             the adjective goes after the noun
    I do not see the potatoes   je ne vois pas les pommes de terre      do, not: ne, pas
    the door of the garden      la porte du jardin                      of, the: du

An underscore is a space within a part.
"""

import itertools

import numpy as np
from alignments import Pair, in_words


def rows(table, size):
    """Cut a table into rows of so many words."""
    words = iter(table.split())
    return list(zip(*[words] * size, strict=True))


NOUNS = rows(
    """
house houses maison maisons f           garden gardens jardin jardins m
cat cats chat chats m                   dog dogs chien chiens m
book books livre livres m               car cars voiture voitures f
tree trees arbre arbres m               apple apples pomme pommes f
flower flowers fleur fleurs f           table tables table tables f
chair chairs chaise chaises f           window windows fenêtre fenêtres f
door doors porte portes f               street streets rue rues f
bird birds oiseau oiseaux m             horse horses cheval chevaux m
boat boats bateau bateaux m             church churches église églises f
letter letters lettre lettres f         child children enfant enfants m
potato potatoes pomme_de_terre pommes_de_terre f
railway railways chemin_de_fer chemins_de_fer m
washing_machine washing_machines machine_à_laver machines_à_laver f
dining_room dining_rooms salle_à_manger salles_à_manger f
living_room living_rooms salon salons m
swimming_pool swimming_pools piscine piscines f
""",
    5,
)  # English, French, and the gender

# English, and French: masculine, feminine, and the plurals of both.
BEFORE = rows(
    """
small petit petite petits petites       big grand grande grands grandes
good bon bonne bons bonnes              bad mauvais mauvaise mauvais mauvaises
pretty joli jolie jolis jolies          beautiful beau belle beaux belles
young jeune jeune jeunes jeunes         new nouveau nouvelle nouveaux nouvelles
""",
    5,
)
AFTER = rows(
    """
red rouge rouge rouges rouges           green vert verte verts vertes
black noir noire noirs noires           white blanc blanche blancs blanches
blue bleu bleue bleus bleues            round rond ronde ronds rondes
open ouvert ouverte ouverts ouvertes    empty vide vide vides vides
broken cassé cassée cassés cassées      heavy lourd lourde lourds lourdes
French français française français françaises
Italian italien italienne italiens italiennes
wooden en_bois en_bois en_bois en_bois
""",
    5,
)
DETERMINERS = rows(
    """
the le la les les                       my mon ma mes mes
this ce cette - -                       a un une - -
these - - ces ces                       two - - deux deux
three - - trois trois
""",
    5,
)
VERBS = rows(
    """
see sees vois voit voyons voyez voient
find finds trouve trouve trouvons trouvez trouvent
want wants veux veut voulons voulez veulent
like likes aime aime aimons aimez aiment
buy buys achète achète achetons achetez achètent
paint paints peins peint peignons peignez peignent
sell sells vends vend vendons vendez vendent
look_for looks_for cherche cherche cherchons cherchez cherchent
look_at looks_at regarde regarde regardons regardez regardent
""",
    7,
)  # English; French with I, he or she, we, you, they
PRONOUNS = rows("I je 0  he il 1  she elle 1  we nous 2  you vous 3  they ils 4", 3)
PREPOSITIONS = rows(
    "in dans  under sous  behind derrière  with avec  without sans  in_front_of devant", 2
)


VOWELS = tuple("aeiouéAEIOU")
# What becomes of a part before a vowel, and of two that meet.
ENGLISH = {"a": "an"}
FRENCH = {"le": "l'", "la": "l'", "je": "j'", "ne": "n'", "de": "d'", "ma": "mon", "ce": "cet",
          "beau": "bel", "nouveau": "nouvel"}  # fmt: skip
CONTRACTED = {("de", "le"): "du", ("de", "les"): "des"}


def aligned_phrases(count, rng):
    """Write `count` phrases and sentences as pairs in words; a few less, since none comes twice."""
    pairs = (written(*phrase(rng)) for _ in range(count))
    return [in_words(pair) for pair in {pair.source: pair for pair in pairs}.values()]


# ---- The grammar ---------------------------------------------------------------------------------

# Each function returns the parts of both sides, in their order: (text, number of the unit).

new = itertools.count().__next__


def one_of(table, rng):
    return table[rng.integers(len(table))]


def phrase(rng):
    """A noun, a noun of another, what there is, or what somebody does; and often where."""
    kind, many = rng.integers(5), rng.random() < 0.4
    if kind < 2:
        english, french = noun(rng, many)
        if kind:
            unit, other = new(), noun(rng, rng.random() < 0.4)
            english += [("of", unit), *other[0]]
            french += [("de", unit), *other[1]]
    elif kind == 2:
        unit, (english, french) = new(), noun(rng, many)
        english = [("there_are" if many else "there_is", unit), *english]
        french = [("il_y_a", unit), *french]
    else:
        english, french = clause(rng, many)
    if rng.random() < 0.3:
        unit, place = new(), noun(rng, rng.random() < 0.4)
        here, there = one_of(PREPOSITIONS, rng)
        english += [(here, unit), *place[0]]
        french += [(there, unit), *place[1]]
    return english, french


def noun(rng, many, negated=False):
    """A noun with what stands before and after it."""
    name, names, nom, noms, gender = one_of(NOUNS, rng)
    form = 2 * many + (gender == "f")  # of those in the tables
    determiner, *forms = one_of([row for row in DETERMINERS if row[1 + form] != "-"], rng)
    french = "de" if negated and determiner == "a" else forms[form]
    first, last = [(determiner, french, new())], (names if many else name, noms if many else nom)
    small, red = (
        [(row[0], row[1 + form], new()) for row in [one_of(table, rng)] if rng.random() < share]
        for table, share in ((BEFORE, 0.35), (AFTER, 0.5))
    )
    house = [(*last, new())]
    return (
        [(here, unit) for here, _, unit in first + small + red + house],
        [(there, unit) for _, there, unit in first + small + house + red],
    )


def clause(rng, many):
    """Somebody sees something, or them, or does not."""
    (i, je, person), (see, sees, *forms) = one_of(PRONOUNS, rng), one_of(VERBS, rng)
    third, negated = person == "1", rng.random() < 0.4
    subject, verb, unit = new(), new(), new()
    if rng.random() < 0.2:  # "I see them": "je les vois"
        them, les, noms = [("them", unit)], [("les", unit)], []
    else:
        (them, noms), les = noun(rng, many, negated), []
    ne, pas, no = [], [], []
    if negated:
        unit = new()
        no, ne, pas = [("does_not" if third else "do_not", unit)], [("ne", unit)], [("pas", unit)]
    english = [(i, subject), *no, (sees if third and not negated else see, verb), *them]
    return english, [(je, subject), *ne, *les, (forms[int(person)], verb), *pas, *noms]


# ---- Spelling ------------------------------------------------------------------------------------


def written(english, french):
    """A pair in characters: any of a part may go with any of the other side's of its unit."""
    english, french = before_vowels(english, ENGLISH), before_vowels(french, FRENCH)
    for n in reversed(range(len(french) - 1)):
        (de, unit), (le, other) = french[n : n + 2]
        if (de, le) in CONTRACTED:  # and what both say is one unit
            french[n : n + 2] = [(CONTRACTED[de, le], unit)]
            english = [(text, unit if each == other else each) for text, each in english]
    (source, here), (target, there) = joined(english), joined(french)
    possible = (there[:, None] == here) & (there[:, None] >= 0)
    return Pair(source, target, np.zeros_like(possible), possible)


def before_vowels(parts, changed):
    """Give each part the form that it has before the next."""
    texts = [text for text, _ in parts]
    return [
        (changed.get(text, text) if after.startswith(VOWELS) else text, unit)
        for (text, unit), after in zip(parts, [*texts[1:], ""], strict=True)
    ]


def joined(parts):
    """The text of parts, and of each of its characters the unit; -1 for a space between parts."""
    text = ""
    units: list[int] = []
    for part, unit in parts:
        if text and not text.endswith("'"):
            text += " "
            units.append(-1)
        text += part.replace("_", " ")
        units += [unit] * len(part)
    return text, np.array(units)
