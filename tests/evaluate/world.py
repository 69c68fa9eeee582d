"""Small copies of the seven benchmarks' data sets: published columns, types, file names; made-up
questions on images of random digits."""

import io

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

TEXT, WHOLE = Value("string"), Value("int64")


def picture(seed=0, side=56):
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(noise).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(folder, records, features, file):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(records, Features(features)).to_parquet(str(path))
    return folder


MATHVISTA = {
    "pid": TEXT, "question": TEXT, "image": TEXT, "decoded_image": Image(), "choices": List(TEXT),
    "unit": TEXT, "precision": Value("float64"), "answer": TEXT, "question_type": TEXT,
    "answer_type": TEXT,
    "metadata": {
        "category": TEXT, "context": TEXT, "grade": TEXT, "img_height": WHOLE, "img_width": WHOLE,
        "language": TEXT, "skills": List(TEXT), "source": TEXT, "split": TEXT, "task": TEXT,
    },
    "query": TEXT,
}  # fmt: skip
METADATA = {
    "category": "math-targeted-vqa", "context": "scientific figure", "grade": "college",
    "img_height": 56, "img_width": 56, "language": "english", "skills": ["scientific reasoning"],
    "source": "made up", "split": "testmini", "task": "textbook question answering",
}  # fmt: skip


def mathvista_record(pid, answer="12", answer_type="integer", choices=None, precision=None):
    return {
        "pid": str(pid), "question": "How many?", "image": f"images/{pid}.jpg",
        "decoded_image": picture(pid), "choices": choices, "unit": None, "precision": precision,
        "answer": answer, "question_type": "multi_choice" if choices else "free_form",
        "answer_type": answer_type, "metadata": METADATA, "query": "Hint: a number.\nHow many?",
    }  # fmt: skip


def mathvista(folder, records=None):
    records = records or [
        mathvista_record(1),
        mathvista_record(2, "1.2", "float", precision=1.0),
        mathvista_record(3, "Osaka", "text", choices=["Tokyo", "Osaka", "Kyoto"]),
        mathvista_record(4, "[2014, 2016]", "list"),
    ]
    return write(
        folder, records, MATHVISTA, "data/testmini-00000-of-00001-725687bf7a18d64b.parquet"
    )


def mathvision(folder):
    columns = {
        "id": TEXT, "question": TEXT, "options": List(TEXT), "image": TEXT,
        "decoded_image": Image(), "answer": TEXT, "solution": TEXT, "level": WHOLE, "subject": TEXT,
    }  # fmt: skip
    records = [
        {
            "id": str(i), "question": "Which number?\n<image1>", "options": options,
            "image": f"images/{i}.jpg", "decoded_image": picture(i), "answer": answer,
            "solution": None, "level": i, "subject": "algebra",
        }
        for i, (options, answer) in enumerate(
            [([], "60"), (["1", "2", "3", "4", "5"], "C"), ([], "\\frac{1}{2}")], start=1
        )
    ]  # fmt: skip
    return write(folder, records, columns, "data/test-00000-of-00001-3532b8d3f1b4047a.parquet")


def mathverse(folder):
    columns = {
        "sample_index": TEXT, "problem_index": TEXT, "problem_version": TEXT, "question": TEXT,
        "image": Image(), "answer": TEXT, "question_type": TEXT,
        "metadata": {"split": TEXT, "source": TEXT, "subject": TEXT, "subfield": TEXT},
        "query_wo": TEXT, "query_cot": TEXT, "question_for_eval": TEXT,
    }  # fmt: skip
    metadata = {"split": "testmini", "source": "made up", "subject": "Plane", "subfield": "Angle"}
    records = [
        {
            "sample_index": str(i), "problem_index": "1", "problem_version": version,
            "question": "", "image": picture(i), "answer": answer, "question_type": kind,
            "metadata": metadata, "query_wo": "Please directly answer.",
            "query_cot": "Please first reason.", "question_for_eval": "Find the angle.",
        }
        for i, (version, kind, answer) in enumerate(
            [
                ("Text Dominant", "multi-choice", "A"),
                ("Vision Only", "multi-choice", "B"),
                ("Vision Only", "free-form", "45°"),
                ("Text Lite", "free-form", "45°"),
            ],
            start=1,
        )
    ]  # fmt: skip
    return write(folder, records, columns, "testmini.parquet")


def mmmu_columns(subject):
    images = {f"image_{i}": Image() for i in range(1, 8)}
    own = {"subject": TEXT} if subject else {"question_type": TEXT, "subfield": TEXT}
    return {
        "id": TEXT, "question": TEXT, "options": TEXT, "explanation": TEXT, **images,
        "img_type": TEXT, "answer": TEXT, "topic_difficulty": TEXT, **own,
    }  # fmt: skip


def mmmu(folder, subjects=None):
    from avar_fast.evaluate.benchmarks.mmmu import SUBJECTS

    for subject in subjects or SUBJECTS:
        records = [
            mmmu_record(
                f"validation_{subject}_1", "['12 <image 2>', '30']", "B", "multiple-choice"
            ),
            mmmu_record(f"validation_{subject}_2", "[]", "['24', '24.0']", "open"),
        ]
        write(folder, records, mmmu_columns(False), f"{subject}/validation-00000-of-00001.parquet")
    return folder


def mmmu_record(id, options, answer, question_type):
    images = {f"image_{i}": None for i in range(1, 8)} | {
        "image_1": picture(1),
        "image_2": picture(2),
    }
    return {
        "id": id, "question": "What is in <image 1>? Look at <image 1>.", "options": options,
        "explanation": "", **images, "img_type": "['Diagrams']", "answer": answer,
        "topic_difficulty": "Easy", "question_type": question_type, "subfield": "Accounting",
    }  # fmt: skip


def mmmu_pro(folder):
    ten = str([f"option {letter}" for letter in "ABCDEFGHIJ"])
    record = mmmu_record("test_History_1", ten, "J", "multiple-choice") | {"subject": "History"}
    columns = mmmu_columns(True)
    write(folder, [{k: record[k] for k in columns}], columns,
          "standard (10 options)/test-00000-of-00001.parquet")  # fmt: skip
    vision = {"id": TEXT, "image": Image(), "options": TEXT, "answer": TEXT, "subject": TEXT}
    seen = {"id": "test_History_1", "image": picture(), "options": ten, "answer": "J",
            "subject": "History"}  # fmt: skip
    return write(folder, [seen], vision, "vision/test-00000-of-00001.parquet")


def mmstar(folder, records=None):
    columns = {
        "index": WHOLE, "question": TEXT, "image": Image(), "answer": TEXT, "category": TEXT,
        "l2_category": TEXT, "meta_info": {"source": TEXT, "split": TEXT, "image_path": TEXT},
    }  # fmt: skip
    records = records or [mmstar_record(i, "ABCD"[i % 4]) for i in range(5)]
    return write(folder, records, columns, "mmstar.parquet")


def mmstar_record(index, answer="A", image=None):
    return {
        "index": index, "question": "Which?\nOptions: A: 1, B: 2, C: 3, D: 4",
        "image": image or picture(index), "answer": answer, "category": "math",
        "l2_category": "geometry",
        "meta_info": {"source": "MMMU", "split": "val", "image_path": "images/0.jpg"},
    }  # fmt: skip


def hallusion(folder):
    """Figures 1 and 2, and figure 0, which is none, in a split of its own."""
    names = (
        "category", "subcategory", "visual_input", "set_id", "figure_id", "sample_note",
        "question_id", "question", "gt_answer_details", "gt_answer", "filename",
    )  # fmt: skip
    columns = {**dict.fromkeys(names, TEXT), "image": Image()}
    for split, figures in (("image", ("1", "2")), ("non_image", ("0",))):
        records = [
            dict(zip(names, ("VS", "chart", figure, "0", figure, "import", question, "Is it so?",
                             "It is.", gold, None if figure == "0" else f"./0_{figure}.png"),
                     strict=True))
            | {"image": None if figure == "0" else picture(int(figure))}
            for figure in figures
            for question, gold in (("0", "1"), ("1", "0"))
        ]  # fmt: skip
        write(folder, records, columns, f"data/{split}-00000-of-00001.parquet")
    return folder


ALL = {
    "mathvista": mathvista, "mathvision": mathvision, "mathverse": mathverse, "mmmu": mmmu,
    "mmmu_pro": mmmu_pro, "mmstar": mmstar, "hallusion": hallusion,
}  # fmt: skip
