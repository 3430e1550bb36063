"""Which process of how many, and what is asked of one that is alone."""

from __future__ import annotations

import numpy as np
import pytest

from etude.training.ranks import ALONE, Ranks, RanksError, joined, lost_peers, started


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert started() == ALONE
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert started() == Ranks(5, 8, 1, 4) and not started().first
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun with one process
    assert started() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(RanksError, match="WORLD_SIZE=many in the environment is no number"):
        started()


def test_rows_are_shared_out_in_their_order() -> None:
    rows = np.arange(12).reshape(6, 2)
    assert np.concatenate([Ranks(rank, 3).own(rows) for rank in range(3)]).tolist() == rows.tolist()
    assert Ranks(1, 3).own(rows)[:, 0].tolist() == [4, 6]


def test_alone_every_answer_is_the_own() -> None:
    assert ALONE.any(True, False) == (True, False) and ALONE.of_first(2.5) == 2.5
    ALONE.check_same("00", "corpus")
    with joined() as ranks:
        assert ranks is ALONE


def test_a_broken_connection_is_one_line_and_other_faults_stay_what_they_are() -> None:
    with pytest.raises(RanksError, match="process 1 lost another process of this run; all is well"), \
            lost_peers(Ranks(1, 2), "all is well"):  # fmt: skip
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234")
    for ranks, words in ((Ranks(1, 2), "a shape is wrong"), (ALONE, "Connection closed by peer")):
        with pytest.raises(RuntimeError, match=words), lost_peers(ranks, "all is well"):
            raise RuntimeError(words)


def test_processes_that_cannot_meet_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(RanksError, match=r"cannot meet the other processes of this run .*MASTER_ADDR"), joined("cpu"):
        pass
