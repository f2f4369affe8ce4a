import pytest
from PIL import Image

from benchmarks import data


@pytest.fixture(scope="session")
def image_folder(digits, tmp_path_factory):
    """FOLDER/{train,test}/<class>/*: digits at 32 pixels as PNG, some as JPEG, some at other sizes."""
    root = tmp_path_factory.mktemp("images")
    images, labels = digits
    for position in range(400):
        part = root / ("train" if position < 300 else "test") / f"class {labels[position]}"
        part.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(images[position].permute(1, 2, 0).numpy())
        if position % 7 == 0:
            image = image.resize((40, 48))
        image.save(part / f"{position}.{'jpg' if position % 3 else 'png'}")
    return root


@pytest.fixture(scope="session")
def built(image_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    return root, data.build(str(root), str(image_folder), images=200, test_images=50, size=32)
