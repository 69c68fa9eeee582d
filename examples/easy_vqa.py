"""Trains and evaluates on easy-VQA: questions about colored shapes that no one here made.

    pip install easy-vqa -e ".[lab,eval]"
    python examples/easy_vqa.py runs/easy-vqa

The package easy-vqa (MIT) holds 38,575 questions about 4,000 images for training and 9,673 about
1,000 others for testing. The script writes them as rows, trains the lab's untrained model on them,
and compares its accuracy with that of the commonest answer, overall and of each question's text.
"""

import argparse
import importlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs"
# Images of 64 x 64 pixels have four tokens, and the shapes are too small in them to be learned in
# minutes. At 112 x 112 they have sixteen.
PIXELS = 112 * 112


def write_rows(folder, split, questions, image_paths, limit=None):
    """Writes ``folder/<split>.jsonl``; returns its rows. Images stay in the package."""
    rows = []
    for number, (text, answer, image) in enumerate(zip(*questions, strict=True)):
        if number == limit:
            break
        turn = {"role": "user", "content": f"<image>{text[0].upper()}{text[1:]}"}
        row = {"id": f"{split}-{number}", "messages": [turn], "answer": answer}
        rows.append(row | {"images": [str(Path(image_paths[image]).resolve())]})
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(text)
    return rows


def commonest(train, test):
    """Accuracy on ``test`` of the commonest answer of ``train``, overall and per question."""
    overall, by_question = Counter(), defaultdict(Counter)
    for row in train:
        overall[row["answer"]] += 1
        by_question[row["messages"][0]["content"]][row["answer"]] += 1
    (best, _), *_ = overall.most_common(1)
    right = [sum(row["answer"] == best for row in test), 0]
    for row in test:
        known = by_question.get(row["messages"][0]["content"], overall)
        right[1] += known.most_common(1)[0][0] == row["answer"]
    return [count / len(test) for count in right]


def run(module, *arguments):
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


def load_package():
    """The package. Python looks in the script's own folder first, where this file has its name."""
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != HERE]
    try:
        return importlib.import_module("easy_vqa")
    except ModuleNotFoundError:
        sys.exit("error: easy-vqa is not installed; run pip install easy-vqa")


def main(out, steps=2000, questions=1000, seed=0):
    easy_vqa = load_package()
    train = write_rows(
        out, "train", easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()
    )
    test = write_rows(
        out, "test", easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths(), questions
    )
    run("avar_fast.lab", "model", "--out", out / "init", "--seed", seed)
    run(
        "avar_fast.train", CONFIGS / "lab-sft.yaml", f"model.path={out / 'init'}",
        f"data.path={out / 'train.jsonl'}", f"train.output_dir={out / 'run'}",
        f"data.min_pixels={PIXELS}", f"data.max_pixels={PIXELS}", "optim.warmup_steps=40",
        "optim.betas=[0.9,0.98]", f"train.steps={steps}", f"train.seed={seed}",
    )  # fmt: skip
    result = out / "result.json"
    run(
        "avar_fast.evaluate", out / "run" / "latest", "--data", out / "test.jsonl", "--out", result,
        "--checker", "exact", "--max-new-tokens", 16, "--batch-size", 50, "--dtype", "float32",
    )  # fmt: skip
    summary = json.loads(result.read_text())["benchmarks"]["rows"]
    overall, by_question = commonest(train, test)
    found = {"model": summary["score"], "commonest": overall, "commonest_by_question": by_question}
    for name, accuracy in found.items():
        print(f"{name.replace('_', ' '):24} {accuracy:.3f}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--steps", type=int, default=2000, help="of training, 32 questions each")
    parser.add_argument("--questions", type=int, default=1000, help="of the test")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
