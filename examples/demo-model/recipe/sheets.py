"""Writes what TypeScript needs to judge edits without Python: `python sheets.py OUT` (OUT: ../../../test/quality/scene-pictures).

The emoji at the two sizes of the scenes as sheets, and one hash over the pictures of all scenes, to which the TypeScript rendering is held.
"""
import hashlib
import json
import sys
from pathlib import Path

from PIL import Image

import scenes


def main(out):
    for name, size in (('small', scenes.SMALL), ('big', scenes.BIG)):
        sheet = Image.new('RGBA', (size * len(scenes.OBJECTS), size))
        for i, thing in enumerate(scenes.OBJECTS):
            sheet.paste(scenes.EMOJI[thing].resize((size, size), Image.LANCZOS), (i * size, 0))
        sheet.save(out / f'{name}.png', optimize=True)
    pictures = [scenes.render(s).tobytes() for s in scenes.all_scenes()]
    (out / 'scenes.json').write_text(json.dumps({
        'objects': scenes.OBJECTS, 'scenes': len(pictures), 'sha256': hashlib.sha256(b''.join(pictures)).hexdigest(),
        'note': 'SHA-256 of the RGB bytes (64x64, rows first) of every scene in the order of all_scenes(), rendered by examples/demo-model/recipe/scenes.py with Pillow',
    }, indent=2) + '\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
