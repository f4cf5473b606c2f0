"""Instruction-editing pairs with known answers: emoji scenes of 64x64 pixels.

A scene is a background colour and at most one emoji at one of three places in one of two sizes, optionally in
greyscale or inverted. `sample_edit` draws (context scene or None, instruction, target scene, kind of edit).
Every picture is rendered, so any edit's true answer is known pixel by pixel.
"""
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIZE, SMALL, BIG = 64, 26, 44
COLOURS = {'red': (214, 60, 60), 'orange': (240, 150, 50), 'yellow': (245, 220, 90), 'green': (90, 180, 90), 'blue': (80, 130, 220),
           'purple': (150, 90, 190), 'pink': (245, 160, 190), 'white': (245, 245, 245), 'black': (30, 30, 34)}
PLACES = {'left': 18, 'center': 32, 'right': 46}
EMOJI = {p.stem: Image.open(p).convert('RGBA') for p in sorted((Path(__file__).parent / 'emoji').glob('*.png'))}
OBJECTS = list(EMOJI)
SHARE = {'generate': .20, 'background': .16, 'replace': .18, 'remove': .08, 'add': .12, 'move': .10, 'resize': .06, 'grayscale': .05, 'negative': .05}


def scene(background, thing=None, place='center', size=SMALL, effect=None):
    return dict(background=background, thing=thing, place=place, size=size, effect=effect)


def all_scenes():
    for background in COLOURS:
        for effect in (None, 'grayscale', 'negative'):
            yield scene(background, effect=effect)
            for thing in OBJECTS:
                yield scene(background, thing, 'center', BIG, effect)
                for place in PLACES:
                    yield scene(background, thing, place, SMALL, effect)


def key(s):
    return (s['background'], s['effect']) if s['thing'] is None else (s['background'], s['thing'], s['place'], s['size'], s['effect'])


def render(s):
    image = Image.new('RGB', (SIZE, SIZE), COLOURS[s['background']])
    if s['thing']:
        sprite = EMOJI[s['thing']].resize((s['size'], s['size']), Image.LANCZOS)
        image.paste(sprite, (PLACES[s['place']] - s['size'] // 2, SIZE // 2 - s['size'] // 2), sprite)
    if s['effect'] == 'grayscale':
        image = image.convert('L').convert('RGB')
    if s['effect'] == 'negative':
        image = ImageOps.invert(image)
    return np.asarray(image, dtype=np.uint8)


def random_scene(r, place_matters=False):
    size = SMALL if place_matters else r.choice([SMALL, BIG])
    return scene(r.choice(list(COLOURS)), r.choice(OBJECTS), 'center' if size == BIG else r.choice(list(PLACES)), size)


def article(word):
    return ('an ' if word[0] in 'aeiou' else 'a ') + word


def where(s):
    return {'left': ' on the left', 'right': ' on the right', 'center': ' in the center'}[s['place']]


def how_big(s):
    return 'small ' if s['size'] == SMALL else 'big '


def sample_edit(r, kind=None):
    kind = kind or r.choices(list(SHARE), list(SHARE.values()))[0]
    if kind == 'generate':
        t = random_scene(r)
        b = t['background']
        return None, r.choice([f"a {how_big(t)}{t['thing']}{where(t)} on {article(b)} background", f"{article(b)} background with a {how_big(t)}{t['thing']}{where(t)}"]), t, kind
    c = random_scene(r, kind == 'move')
    return edit_of(r, kind, {**c, 'place': 'center'} if kind == 'resize' else c)


def edit_of(r, kind, c):
    """An edit of this very scene, which has a thing and no effect."""
    other = lambda values, not_this: r.choice([v for v in values if v != not_this])
    n = c['thing']
    if kind == 'background':
        b = other(COLOURS, c['background'])
        return c, r.choice([f'make the background {b}', f'change the background to {b}', f'turn the background {b}']), {**c, 'background': b}, kind
    if kind == 'replace':
        o = other(OBJECTS, n)
        return c, r.choice([f'replace the {n} with {article(o)}', f'turn the {n} into {article(o)}', f'change the {n} to {article(o)}', f'make it {article(o)}']), {**c, 'thing': o}, kind
    if kind == 'remove':
        return c, r.choice([f'remove the {n}', f'delete the {n}', f'erase the {n}']), scene(c['background']), kind
    if kind == 'add':
        return scene(c['background']), r.choice([f'add a {how_big(c)}{n}{where(c)}', f'put a {how_big(c)}{n}{where(c)}']), c, kind
    if kind == 'move':
        t = {**c, 'place': other(PLACES, c['place'])}
        return c, r.choice([f"move the {n} to the {t['place']}", f'put the {n}{where(t)}']), t, kind
    if kind == 'resize':
        t = {**c, 'size': BIG if c['size'] == SMALL else SMALL}
        return c, f"make the {n} {'bigger' if t['size'] == BIG else 'smaller'}", t, kind
    if kind == 'grayscale':
        return c, r.choice(['make it black and white', 'convert it to grayscale']), {**c, 'effect': 'grayscale'}, kind
    return c, r.choice(['invert the colors', 'make it a photo negative']), {**c, 'effect': 'negative'}, 'negative'
