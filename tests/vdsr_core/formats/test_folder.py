import numpy as np
import pytest

from vdsr_core import ImageFile, read_folder, write_image


def test_read_folder_gives_images_and_what_cannot_be_read(tmp_path):
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for name in ("b.png", "a.tif", "curves.train.png"):
        write_image(tmp_path / name, ImageFile(image, "YX"))
    (tmp_path / "c.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")
    (tmp_path / "below").mkdir()
    write_image(tmp_path / "below" / "d.png", ImageFile(image, "YX"))
    found = {path.name: result for path, result in read_folder(tmp_path)}
    assert list(found) == ["a.tif", "b.png", "c.png"]
    for name in ("a.tif", "b.png"):
        np.testing.assert_array_equal(found[name].data, image)
    assert isinstance(found["c.png"], ValueError)
    assert [path.name for path, _ in read_folder(tmp_path / "*.tif")] == ["a.tif"]
    with pytest.raises(FileNotFoundError, match="holds no image"):
        list(read_folder(tmp_path / "*.zarr"))
