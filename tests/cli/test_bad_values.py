"""A sample of the bad values that tests/torture throws at the commands; each is one sentence that names it."""

import itertools

from wrong_commands import bad_commands


def test_each_bad_option_is_one_sentence(command, tmp_path):
    data = dict.fromkeys((2, 3), f"{tmp_path}/data")
    for _, words, named in itertools.islice(bad_commands(tmp_path, {"pretrain": data, "finetune": data}), 0, None, 17):
        status, output, errors = command(*words[2:])
        told = errors if status == 2 else str(status)
        assert told.startswith(("error: ", "ERROR: ")), words
        assert "Traceback" not in output + errors, words
        if words[2] not in ("evaluate", "infer"):  # which read the run first, and there is none
            assert named in told, words
    assert [path.name for path in tmp_path.iterdir()] == []
