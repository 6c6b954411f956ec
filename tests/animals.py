"""Three hundred rows of one's own, as a user has them: captions, small pictures, a number, a class and an owner."""

import csv
import pathlib

import numpy as np
from PIL import Image

WORDS = {"cat": ["purrs", "meows"], "dog": ["barks", "wags"], "owl": ["hoots", "flies"]}
COMMON = "the small animal often seen near a house".split()


def write_animals(folder: pathlib.Path, rows: int = 300) -> pathlib.Path:
    """``animals.csv`` and ``pictures/``: caption and picture show the class in three of four rows, each on its own."""
    random, kinds = np.random.RandomState(0), sorted(WORDS)
    (folder / "pictures").mkdir(parents=True)
    path = folder / "animals.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["caption", "photo", "weight", "kind", "owner"])
        for row in range(rows):
            label = row % 3
            told, shown = (label if random.rand() < 0.75 else random.randint(3) for _ in range(2))
            words = [*random.choice(COMMON, 5), random.choice(WORDS[kinds[told]])]
            pixels = random.randint(0, 90, (12, 12, 3)).astype(np.uint8)
            pixels[4 * shown : 4 * shown + 4] += 120
            name = f"pictures/{row:03d}.png"
            Image.fromarray(pixels).save(folder / name)
            caption = "" if row % 17 == 0 else " ".join(random.permutation(words))
            writer.writerow(
                [caption, "" if row % 23 == 0 else name, f"{random.normal(label):.2f}", kinds[label], row // 4]
            )
    return path
