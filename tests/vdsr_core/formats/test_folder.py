import numpy as np
import pytest
import tifffile

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


def test_an_image_in_several_files_is_read_once(tmp_path):
    planes = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    data = "".join(
        f'<TiffData FirstZ="{z}" PlaneCount="1"><UUID FileName="{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(2)
    )
    for z, plane in enumerate(planes):
        says = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="5" SizeY="4" SizeZ="2" SizeC="1" '
            f'SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / f"{z}.ome.tif", plane, description=says, metadata=None)
    ((path, image),) = read_folder(tmp_path)
    assert path.name == "0.ome.tif"
    np.testing.assert_array_equal(image.data, planes)
