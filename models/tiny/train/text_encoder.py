#!/usr/bin/env python3
"""The text encoder learns the grammar by itself, before it meets the transformer.

    python text_encoder.py --run DIR [--steps 600]

Each row of its output has to tell action, colour and shape to three linear classifiers, which are then dropped. Takes a
minute, and spares the transformer the learning of a language from the errors of its videos.
"""

import argparse
import random
from pathlib import Path

import torch
from data import Sentences
from models import UMT5, Log, build, save
from torch.nn.functional import cross_entropy
from world import ACTIONS, COLOURS, SHAPES, Scene

PARTS = [list(ACTIONS), list(COLOURS), list(SHAPES)]
NOTHING_SAID = 0.05  # of the sentences are empty, as many are an action alone: "static", 静止


def example(rng):
    """(sentence, its three classes; one more than there are stands for "not said")"""
    unsaid = [len(part) for part in PARTS]
    kind = rng.random()
    if kind < NOTHING_SAID:
        return "", unsaid
    scene = Scene.sample(rng, allowed=lambda *combination: True)
    actor = scene.things[0]
    action = PARTS[0].index(actor.action)
    if kind < 2 * NOTHING_SAID:
        phrases = [phrase for language in ACTIONS[actor.action] for phrase in language]
        if actor.action == "still":
            phrases += ["static", "静止", "still image"]
        return rng.choice(phrases), [action, *unsaid[1:]]
    return scene.sentence(rng), [action, PARTS[1].index(actor.colour), PARTS[2].index(actor.shape)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=2e-3)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    log, sentences = Log(args.run / "text.jsonl"), Sentences()
    encoder = build("umt5", UMT5 | {"vocab_size": sentences.rows}, seed=3)
    torch.manual_seed(5)
    heads = torch.nn.ModuleList(torch.nn.Linear(UMT5["dim"], len(part) + 1) for part in PARTS)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=args.rate, weight_decay=0.01)
    for step in range(args.steps):
        rng = random.Random(f"text {step}")
        texts, classes = zip(*(example(rng) for _ in range(args.batch)))
        ids, mask = sentences.ids(texts, "cpu")
        rows = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        wanted = torch.tensor(classes)[:, None].expand(-1, ids.shape[1], -1)[mask.bool()]
        said = [head(rows) for head in heads]
        loss = sum(cross_entropy(s, wanted[:, i]) for i, s in enumerate(said))
        for group in optimiser.param_groups:
            group["lr"] = args.rate * min((step + 1) / 30, 1, 2 * (1 - step / args.steps))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step + 1 == args.steps:
            right = torch.stack([s.argmax(1) == wanted[:, i] for i, s in enumerate(said)]).all(0).float().mean()
            log(step=step, loss=loss.item(), rows_right=right.item())
    save(args.run / "umt5.pt", umt5=encoder.state_dict())


if __name__ == "__main__":
    main()
