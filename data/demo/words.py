"""The words and names that generated questions are made of."""

_WORDS = """
    anchor apple arrow autumn badger balloon bamboo basket beacon bottle branch breeze bridge bucket butter button
    cabbage camera candle canvas carpet castle cellar cheese cherry circle coffee copper corner cotton cradle curtain
    daisy dancer desert dinner dragon drawer eagle engine envelope falcon feather fiddle flower forest fossil garden
    ginger glacier goggles hammer harbour helmet hollow honey island ivory jacket jungle kettle kitten ladder lantern
    lemon letter lizard locket mango marble meadow mirror mitten monsoon mountain muffin needle noodle notebook nutmeg
    ocean olive onion orchard otter paddle paper parrot pebble pepper pillow planet pocket pottery puddle pumpkin
    quarry rabbit raccoon ribbon river rocket saddle sailor salmon scissors shadow shovel silver sparrow spider
    squirrel summer sunset teapot temple thistle thunder timber tomato tunnel turtle umbrella valley velvet village
    violin waffle walnut weather whistle willow window winter wizard yellow zipper
"""
_NAMES = """
    Ada Ben Carla Dmitri Elena Farid Grace Hugo Ines Jonas Kira Liam Maya Nils Olga Priya Quentin Rosa Sven Tara
    Umar Vera Walter Xenia Yusuf Zoe Amir Bianca Cyril Dora
"""
_NONSENSE = """
    bloops razzies lazzies tubs wumps zorps florps quibs drells snarps plinks gromps vexes murks jibbs krells
    yorps thrums clonks fizzers dwibs hoots prabbles skivs
"""

WORDS = tuple(_WORDS.split())
NAMES = tuple(_NAMES.split())
NONSENSE = tuple(_NONSENSE.split())
