"""Files as they arrive: pictures drawn anew, bombs and disguises refused, texts of every usual encoding."""

import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from chat import uploads
from chat.tests.files import head_of_png, noise, picture
from chat.uploads import Upload, clean_name, read
from tenants.errors import ErrorCode, ProductError

GPS = 0x8825
ORIENTATION = 0x0112


def refusal_of(data: bytes, name: str = "file") -> tuple[int, str, object]:
    with pytest.raises(ProductError) as refused:
        read(name=name, data=data)
    return refused.value.code, refused.value.type, refused.value.facts.get("measure")


def opened(upload: Upload) -> Image.Image:
    assert (upload.kind, upload.media_type, upload.text, upload.size) == ("image", "image/jpeg", "", len(upload.data))
    found = Image.open(io.BytesIO(upload.data))
    found.load()
    assert (found.format, found.mode, found.size) == ("JPEG", "RGB", (upload.width, upload.height))
    return found


def colour_of(image: Image.Image) -> list[int]:
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return [round(part / 16) for part in pixel]


NOT_TAKEN = (ErrorCode.INVALID, "attachment_not_taken", None)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_picture_of_each_kind_is_kept_as_jpeg(form: str) -> None:
    image = opened(read(name="p", data=picture(40, 30, form=form)))
    assert (image.size, colour_of(image)) == ((40, 30), [13, 2, 2])


@pytest.mark.parametrize(
    ("mode", "colour", "wanted"),
    [
        ("RGBA", (200, 30, 30, 0), [16, 16, 16]),  # nothing of it is seen: paper
        ("LA", (0, 255), [0, 0, 0]),
        ("P", 0, [0, 0, 0]),
        ("1", 1, [16, 16, 16]),
        ("I;16", 0x8000, [8, 8, 8]),
    ],
)
def test_every_way_of_writing_colours_is_read(mode: str, colour: object, wanted: list[int]) -> None:
    assert colour_of(opened(read(name="p", data=picture(8, 8, colour, mode=mode)))) == wanted


def test_colours_for_print_are_read() -> None:
    assert colour_of(opened(read(name="p", data=picture(8, 8, (0, 255, 255, 0), mode="CMYK", form="JPEG"))))[0] > 12


def test_where_and_by_whom_a_picture_was_taken_is_gone_and_it_stands_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(GPS)[2] = (31.0, 13.0, 49.0)
    exif[0x010F] = "Secret Camera"
    data = picture(40, 30, form="JPEG", exif=exif, comment=b"Secret comment", icc_profile=b"Secret profile")
    assert b"Secret Camera" in data
    kept = read(name="p.jpg", data=data + b"Secret tail: <script>")
    image = opened(kept)
    assert (image.size, dict(image.getexif()), b"Secret" in kept.data) == ((30, 40), {}, False)
    assert sorted(image.info) == ["jfif", "jfif_density", "jfif_unit", "jfif_version"]


def test_a_large_picture_is_made_smaller_in_both_directions() -> None:
    wide, tall, long = (read(name="p", data=picture(*size)) for size in ((4000, 3000), (1080, 2400), (9000, 30)))
    assert [(each.width, each.height) for each in (wide, tall, long)] == [(1414, 1060), (821, 1825), (2048, 6)]
    assert all(each.width * each.height <= uploads.KEPT_PIXELS for each in (wide, tall, long))
    photo = read(name="p", data=picture(8000, 6000, form="JPEG"))
    assert (photo.width, photo.height) == (1414, 1060)


def test_what_is_kept_is_bounded_whatever_is_seen() -> None:
    kept = read(name="p", data=noise(1400, 1060, form="JPEG"))
    assert (kept.width, kept.size <= uploads.KEPT_BYTES) == (1400, True)


@pytest.mark.parametrize("size", [(6000, 6000), (12_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_small_file_that_would_be_a_huge_picture_is_refused_by_its_head(size: tuple[int, int]) -> None:
    assert refusal_of(head_of_png(*size))[:2] in {
        (ErrorCode.INVALID, "attachment_too_large"),
        (ErrorCode.INVALID, "attachment_not_taken"),
    }
    assert refusal_of(head_of_png(6000, 6000)) == (ErrorCode.INVALID, "attachment_too_large", "pixels")


def test_a_text_in_a_picture_that_unfolds_to_gigabytes_is_refused() -> None:
    told = PngInfo()
    told.add_text("Comment", "a" * 30_000_000, zip=True)
    data = picture(8, 8, pnginfo=told)
    assert len(data) < 100_000
    assert refusal_of(data) == NOT_TAKEN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  \n\t ",
        picture()[:60],
        b"\x89PNG\r\n\x1a\n" + b"not at all",
        b"\xff\xd8\xff" + bytes(range(256)),
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"GIF89a",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nstream\x00\x01\x02endstream",
        b"PK\x03\x04" + b"\x00" * 20,
        b"MZ\x90\x00\x03\x00",
        b"BM" + b"\x00" * 60,
        b"\x7fELF\x02\x01\x01\x00",
        b"\x00" * 2_000_000,
        bytes(range(128, 256)) * 3,
        b"a text with a bell \x07 in it",
    ],
)
def test_what_is_neither_a_picture_nor_a_text_is_refused(data: bytes) -> None:
    assert refusal_of(data) == NOT_TAKEN


def test_a_script_that_pretends_to_be_a_picture_is_a_text() -> None:
    kept = read(name="logo.svg", data=b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    assert (kept.kind, kept.media_type, kept.data) == ("text", "text/plain", b"")


@pytest.mark.parametrize(
    "data",
    [
        "春天 and spring\r\nline\ttwo".encode(),
        b"\xef\xbb\xbf" + "春天 and spring\nline\ttwo".encode(),
        "春天 and spring\rline\ttwo".encode("gb18030"),
        "春天 and spring\nline\ttwo".encode("utf-16"),
        b"\xfe\xff" + "春天 and spring\nline\ttwo".encode("utf-16-be"),
    ],
)
def test_a_text_of_any_usual_encoding_is_read(data: bytes) -> None:
    kept = read(name="notes.md", data=data)
    assert (kept.kind, kept.name, kept.text) == ("text", "notes.md", "春天 and spring\nline\ttwo")
    assert kept.size == len("春天 and spring\nline\ttwo".encode())


def test_a_file_is_no_larger_than_it_may_be() -> None:
    assert read(name="t", data=b"a" * 100_000).size == 100_000
    too_long = (ErrorCode.INVALID, "attachment_too_large", "characters")
    assert [refusal_of(b"a" * 100_001), refusal_of(b"a" * 1_100_000)] == [too_long] * 2
    assert refusal_of(b"a" * (8 * 1024 * 1024 + 1)) == (ErrorCode.INVALID, "attachment_too_large", "bytes")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("photo.jpg", "photo.jpg"),
        ("C:\\Users\\alice\\photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("", "file"),
        ("a\r\nb\x00\u202e.txt", "ab.txt"),
        ('<file name="x">.txt', "file name=x.txt"),
        ("报告.csv", "报告.csv"),
        ("x" * 200 + ".markdown", "x" * 108 + ".markdown"),
        ("x" * 200, "x" * 120),
    ],
)
def test_a_name_is_one_line_without_a_path(given: str, shown: str) -> None:
    assert clean_name(given) == shown
