import csv

from vdsr_core.cli.log import TrainingLog


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_log_drops_the_rows_that_come_again(tmp_path):
    (tmp_path / "out.train.csv").write_text("step,loss\n100,3.0\n200,2.0\n300,1.0\n")
    with TrainingLog(tmp_path / "out.safetensors", 200) as log:
        assert [row["step"] for row in log.rows] == ["100", "200"]
    assert [row["loss"] for row in rows_of(tmp_path / "out.train.csv")] == ["3.0", "2.0"]
