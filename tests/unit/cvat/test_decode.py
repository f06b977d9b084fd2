"""Pictures of every mode become eight-bit RGB of the size that annotations are drawn in, or a BadPicture."""

import io
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from agent.cvat import decode
from agent.cvat.decode import BadPicture, decode_picture, decode_video

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
RGB = Image.fromarray(np.stack([RAMP] * 3, -1))


def encoded(picture, kind="PNG", **more):
    out = io.BytesIO()
    picture.save(out, format=kind, **more)
    return out.getvalue()


@pytest.mark.parametrize("size", [(640, 480), (601, 433), (1281, 7), (1, 1)])
@pytest.mark.parametrize(
    "form",
    [
        {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"subsampling": "4:1:1"}, {"progressive": True},
        {"quality": 5}, {"keep_rgb": True}, {"restart_marker_rows": 1}, {"qtables": "web_low"},
    ],
    ids=str,
)  # fmt: skip
def test_a_jpeg_of_any_form_has_the_pixels_that_pillow_gives(form, size):
    noise = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)
    content = encoded(Image.fromarray(noise).resize(size), "JPEG", **form)
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(decode_picture(content), np.asarray(picture))
    # One that is cut short is no picture, however far it goes.
    for length in (len(content) // 2, len(content) - 3):
        with pytest.raises(BadPicture, match="cannot be decoded"):
            decode_picture(content[:length])


@pytest.mark.parametrize(
    "content",
    [
        encoded(RGB),
        encoded(RGB, "JPEG", quality=95),
        encoded(RGB.convert("L")),
        encoded(RGB.convert("L"), "JPEG", quality=95),
        encoded(RGB.convert("LA")),
        encoded(RGB.convert("RGBA")),
        encoded(RGB.quantize(64)),
        encoded(RGB.convert("CMYK"), "JPEG", quality=95),
        encoded(RGB, "WEBP", lossless=True),
        encoded(RGB, "BMP"),
        encoded(RGB, "TIFF", compression="tiff_lzw"),
        encoded(RGB.convert("L").convert("F"), "TIFF"),
        encoded(Image.fromarray(RAMP.astype(np.int32) * 100), "TIFF"),
    ],
)
def test_modes(content):
    image = decode_picture(content, (64, 48))
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable, "models may work in place"
    assert np.abs(image[24].mean(axis=-1) - RAMP[24]).max() < 12


def test_black_and_white():
    content = encoded(Image.fromarray(RAMP > 127))
    assert set(decode_picture(content)[24, :, 0]) == {0, 255}


def test_deep_grays_are_stretched_and_equalized_as_cvat_does():
    """A picture that uses a small part of its range would be all black by its high bytes."""
    content = encoded(Image.fromarray(1000 + RAMP.astype(np.uint16)))
    row = decode_picture(content)[24, :, 0].astype(int)
    assert row[0] == 0
    assert row[-1] == 255
    assert (np.diff(row) >= 0).all()


@pytest.mark.parametrize("value", [0, 700])
@pytest.mark.parametrize("deep", [np.uint16, np.int32])
def test_a_deep_gray_of_one_value(value, deep):
    content = encoded(Image.fromarray(np.full((48, 64), value, deep)), "TIFF")
    assert len(np.unique(decode_picture(content))) == 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    size = (64, 48) if turn < 5 else (48, 64)
    image = decode_picture(encoded(RGB, "JPEG", exif=exif, quality=95), size)
    assert image.shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        encoded(RGB)[:-40],
        encoded(RGB, "JPEG")[:300],
        encoded(RGB)[:60] + b"\0" * 40 + encoded(RGB)[100:],
        encoded(RGB, "TIFF")[:50],
    ],
)
def test_what_cannot_be_decoded(content):
    with pytest.raises(BadPicture, match="cannot be decoded"):
        decode_picture(content)


def test_a_picture_that_unpacks_to_too_much():
    """A few hundred bytes that say that they are 20000 x 20000."""

    def part(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = part(b"IHDR", (20_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00")
    body = part(b"IDAT", zlib.compress(b"\0" * 999)) + part(b"IEND", b"")
    with pytest.raises(BadPicture):
        decode_picture(b"\x89PNG\r\n\x1a\n" + head + body)


def test_our_own_limit_counts_and_not_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode_picture(encoded(RGB)).shape == (48, 64, 3)
    monkeypatch.setattr(decode, "PIXEL_LIMIT", 3000)
    with pytest.raises(BadPicture, match="64x48 pixels, allowed: 3,000"):
        decode_picture(encoded(RGB))


def test_a_picture_of_another_size_is_brought_to_the_servers():
    assert decode_picture(encoded(RGB.resize((32, 24))), (64, 48)).shape == (48, 64, 3)
    for size in [(48, 64), (6400, 4800)]:
        with pytest.raises(BadPicture, match="the server says"):
            decode_picture(encoded(RGB), size)


def video(frames, size=(64, 48)):
    """An mp4 whose frame n is a gray of 20 n."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            gray = np.full((size[1], size[0], 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def test_video_frames_by_place():
    found = {place: image.mean() for place, image in decode_video(video(10), {2, 3, 9})}
    assert {place: round(value / 20) for place, value in found.items()} == {2: 2, 3: 3, 9: 9}


@pytest.mark.parametrize("size", [(128, 96), (63, 47), (64, 48)])
def test_video_frames_have_the_size_of_the_video(size):
    ((place, image),) = decode_video(video(3), {1}, size)
    assert place == 1
    assert image.shape == (size[1], size[0], 3)
    assert image.flags.writeable
    assert abs(image.mean() - 20) < 3


@pytest.mark.parametrize("content", [b"", b"no video", video(5)[:200]])
def test_a_damaged_video(content):
    with pytest.raises(BadPicture, match="video chunk"):
        list(decode_video(content, {0}))


def test_a_video_that_ends_early_gives_what_it_has():
    assert [place for place, _ in decode_video(video(5), {3, 4, 5, 6})] == [3, 4]
