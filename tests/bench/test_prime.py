from __future__ import annotations

from pathlib import Path

from etude.bench.prime import bench
from etude.prime.number import decimal
from etude.prime.packing import gzip_member


def test_both_find_the_same_prime(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.write_text(decimal(int.from_bytes(gzip_member(b"print('a short program')"), "big")))
    said: list[str] = []
    rows = {(row["subject"], row["metric"]): row for row in bench(path, said.append)}
    assert rows["étude over gmpy2", "same prime"]["value"] == 1
    ours, theirs = rows["étude", "time"]["value"], rows["gmpy2.next_prime", "time"]["value"]
    assert rows["étude over gmpy2", "speed"]["value"] == theirs / ours
    assert rows["payload", "size"]["value"] > 300
    assert 0 < rows["payload", "offset of the prime"]["value"] < 20_000
    assert said
