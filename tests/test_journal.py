"""Files that survive a kill: torn lines, locks, whole files."""

import json

import pytest

from avar_fast.journal import Journal, differing, whole_lines, write_whole


def test_lines_come_back_by_place_and_in_order(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    places = [journal.add({"n": n, "text": "two\nlines \u4f60"}) for n in range(3)]
    assert [json.loads(journal.read(*place))["n"] for place in places] == [0, 1, 2]
    journal.close()
    lines = list(whole_lines(tmp_path / "j.jsonl"))
    assert [line.number for line in lines] == [1, 2, 3]
    assert [(line.start, len(line.content)) for line in lines] == places


def test_a_torn_last_line_is_ignored_by_readers_and_removed_by_the_next_writer(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"n": 0}\n{"n": ')
    assert [line.content for line in whole_lines(path)] == [b'{"n": 0}\n']
    journal = Journal(path)
    place = journal.add({"n": 1})
    assert json.loads(journal.read(*place)) == {"n": 1}
    journal.close()
    assert path.read_bytes() == b'{"n": 0}\n{"n": 1}\n'


def test_an_exclusive_journal_has_one_writer(tmp_path):
    first = Journal(tmp_path / "j.jsonl", exclusive=True)
    with pytest.raises(BlockingIOError):
        Journal(tmp_path / "j.jsonl", exclusive=True)
    first.close()
    Journal(tmp_path / "j.jsonl", exclusive=True).close()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    write_whole(path, ["old"])

    def pieces():
        yield "new"
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_whole(path, pieces())
    assert path.read_text() == "old"


def test_settings_that_differ_are_named():
    assert differing({"a": 1, "b": 2}, {"b": 3, "c": None, "a": 1}) == ["b"]
