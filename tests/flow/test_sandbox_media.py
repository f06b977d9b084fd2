"""What becomes of pictures and videos: frames, chunks, meta."""

import io
import zipfile
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from tests.support.tasks import Client, drawn, filmed, pixels


@pytest.fixture
def client(sandbox):
    with Client(sandbox, "bot", "secret") as client:
        yield client


def opened(content):
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def frame(client, task, number, quality="original", of="tasks"):
    answer = client.get(f"/api/{of}/{task}/data", params={"type": "frame", "number": number, "quality": quality})
    assert answer.status_code == 200, answer.text
    return answer.content


def chunk(client, place, **query):
    answer = client.get(f"{place}/data", params={"type": "chunk", **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-checksum"] == str(zlib.crc32(answer.content))
    return answer.content


def test_every_kind_of_picture(client):
    grey16 = io.BytesIO()
    Image.fromarray(pixels((64, 48))[..., 0].astype(np.uint16) * 16).save(grey16, format="PNG")
    files = [
        ("0.jpg", drawn()),
        ("1.png", drawn("PNG", mode="RGBA")),
        ("2.png", drawn("PNG", mode="L")),
        ("3.png", grey16.getvalue()),
        ("4.png", drawn("PNG", mode="P")),
        ("5.webp", drawn("WEBP", lossless=True)),
        ("6.bmp", drawn("BMP")),
    ]
    task = client.task(files)
    names = zipfile.ZipFile(io.BytesIO(chunk(client, f"/api/tasks/{task}", number=0, quality="original"))).namelist()
    assert names == [f"{n:06d}.{name.rpartition('.')[2]}" for n, (name, _) in enumerate(files)]
    packed = zipfile.ZipFile(io.BytesIO(chunk(client, f"/api/tasks/{task}", number=0, quality="compressed")))
    for number, (_, content) in enumerate(files):
        assert frame(client, task, number) == content
        for small in (frame(client, task, number, "compressed"), packed.read(f"{number:06d}.jpeg")):
            shown = opened(small)
            assert (shown.format, shown.mode, shown.size) == ("JPEG", "RGB", (64, 48))
    # 16 bits are scaled, not clipped: the gradient is still there.
    assert np.ptp(np.asarray(opened(frame(client, task, 3, "compressed")).convert("L"))) > 200


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation_is_applied(client, turn):
    source = Image.fromarray(pixels((80, 40)))
    exif = Image.Exif()
    exif[0x0112] = turn
    out = io.BytesIO()
    source.save(out, format="JPEG", exif=exif, quality=95)
    task = client.task([("turned.jpg", out.getvalue())])
    size = (40, 80) if turn >= 5 else (80, 40)
    (meta,) = client.get(f"/api/tasks/{task}/data/meta").json()["frames"]
    assert (meta["width"], meta["height"]) == size
    original = frame(client, task, 0)
    assert (original == out.getvalue()) is (turn == 1)
    for content in (original, frame(client, task, 0, "compressed")):
        assert opened(content).size == size
        assert opened(content).getexif().get(0x0112, 1) == 1


def test_archives_folders_and_order(client):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in (10, 9, 1):
            archive.writestr(f"sub/{number}.jpg", drawn(seed=number))
        archive.writestr("readme.txt", "no picture")
        archive.writestr("../../outside.jpg", drawn())
    for method, order in (
        ("lexicographical", ["outside.jpg", "sub/1.jpg", "sub/10.jpg", "sub/9.jpg"]),
        ("natural", ["outside.jpg", "sub/1.jpg", "sub/9.jpg", "sub/10.jpg"]),
    ):
        task = client.task([("pictures.zip", packed.getvalue())], data={"sorting_method": method})
        found = client.get(f"/api/tasks/{task}/data/meta").json()["frames"]
        assert [one["name"] for one in found] == order


def test_part_of_the_pictures(client):
    files = [(f"{n}.jpg", drawn(seed=n)) for n in range(10)]
    part = {"start_frame": "2", "stop_frame": "8", "frame_filter": "step=3"}
    task = client.task(files, data=part)
    meta = client.get(f"/api/tasks/{task}/data/meta").json()
    assert [one["name"] for one in meta["frames"]] == ["2.jpg", "5.jpg", "8.jpg"]
    assert (meta["size"], meta["start_frame"], meta["stop_frame"], meta["frame_filter"]) == (3, 2, 8, "step=3")
    assert frame(client, task, 1) == files[5][1]


def greys(content):
    with av.open(io.BytesIO(content)) as container:
        return [round(float(f.to_ndarray(format="rgb24").mean()) / 10) for f in container.decode(video=0)]


def test_video_with_start_stop_and_step(client, tmp_path):
    film = filmed(tmp_path / "clip.mp4", frames=24).read_bytes()
    part = {"start_frame": "3", "stop_frame": "20", "frame_filter": "step=2", "chunk_size": "4"}
    task = client.task([("clip.mp4", film)], data=part, segment_size=5, overlap=1)
    shown = client.get(f"/api/tasks/{task}").json()
    assert (shown["mode"], shown["size"], shown["overlap"]) == ("interpolation", 9, 1)
    meta = client.get(f"/api/tasks/{task}/data/meta").json()
    assert (meta["start_frame"], meta["stop_frame"], len(meta["frames"]), meta["chapters"]) == (3, 19, 1, [])
    jobs = client.jobs(task)
    assert [(job["start_frame"], job["stop_frame"]) for job in jobs] == [(0, 4), (4, 8)]
    place = f"/api/tasks/{task}"
    for quality in ("original", "compressed"):
        assert greys(chunk(client, place, number=1, quality=quality)) == [11, 13, 15, 17]
        assert greys(chunk(client, place, number=2, quality=quality)) == [19]
        for number in (0, 5, 8):
            picture = opened(frame(client, task, number, quality))
            assert picture.format == "PNG"
            assert round(float(np.asarray(picture).mean()) / 10) == 3 + 2 * number
    second = f"/api/jobs/{jobs[1]['id']}"
    assert greys(chunk(client, second, index=0)) == [11, 13, 15, 17]
    assert greys(chunk(client, second, index=1)) == [19]
    assert greys(chunk(client, second, number=1)) == [11, 13, 15, 17]
    job_meta = client.get(f"{second}/data/meta").json()
    assert (job_meta["size"], job_meta["start_frame"], job_meta["stop_frame"]) == (5, 11, 19)
    assert opened(client.get(f"{second}/preview").content).size == (256, 192)


def test_video_in_zip_chunks(client, tmp_path):
    film = filmed(tmp_path / "clip.mp4", frames=10).read_bytes()
    task = client.task([("clip.mp4", film)], data={"use_zip_chunks": "true", "chunk_size": "4"})
    shown = client.get(f"/api/tasks/{task}").json()
    assert (shown["data_original_chunk_type"], shown["data_compressed_chunk_type"]) == ("video", "imageset")
    packed = zipfile.ZipFile(io.BytesIO(chunk(client, f"/api/tasks/{task}", number=2, quality="compressed")))
    assert packed.namelist() == ["000000.jpeg", "000001.jpeg"]
    assert round(float(np.asarray(opened(packed.read("000001.jpeg"))).mean()) / 10) == 9
    assert opened(frame(client, task, 9, "compressed")).format == "JPEG"
    assert opened(frame(client, task, 9, "original")).format == "PNG"


def test_compressed_chunks_of_a_large_video_are_halved(client, tmp_path):
    film = filmed(tmp_path / "clip.mp4", frames=3, size=(1920, 1080)).read_bytes()
    task = client.task([("clip.mp4", film)])
    assert client.get(f"/api/tasks/{task}").json()["data_chunk_size"] == 36
    for quality, size in (("original", (1920, 1080)), ("compressed", (960, 540))):
        with av.open(io.BytesIO(chunk(client, f"/api/tasks/{task}", number=0, quality=quality))) as container:
            assert (container.streams.video[0].width, container.streams.video[0].height) == size


def test_default_segments_of_a_video_overlap(client, tmp_path):
    film = filmed(tmp_path / "clip.mp4", frames=40, size=(64, 48)).read_bytes()
    task = client.task([("clip.mp4", film)], segment_size=20)
    assert [(j["start_frame"], j["stop_frame"]) for j in client.jobs(task)] == [(0, 19), (15, 34), (30, 39)]


def test_deleted_frames_of_a_job(client):
    task = client.task([(f"{n}.jpg", drawn(seed=n)) for n in range(4)], segment_size=2)
    first, second = (f"/api/jobs/{job['id']}/data/meta" for job in client.jobs(task))
    client.patch(f"/api/tasks/{task}/data/meta", json={"deleted_frames": [0, 3]})
    assert client.get(second).json()["deleted_frames"] == [3]
    client.patch(first, json={"deleted_frames": [1]})
    assert client.get(f"/api/tasks/{task}/data/meta").json()["deleted_frames"] == [1, 3]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("0.jpg", b"no picture")], "UnidentifiedImageError"),
        ([("0.mp4", b"no video")], "cannot be read"),
        ([("0.mp4", b"no video"), ("0.jpg", b"")], "Only one video"),
        ([], "No media data found"),
    ],
)
def test_files_that_make_no_task(client, files, message):
    task = client.post("/api/tasks", json={"name": "bad", "labels": []}).json()["id"]
    form = [(f"client_files[{at}]", file) for at, file in enumerate(files)]
    sent = {"files": form, "data": {"image_quality": "70"}} if form else {"json": {"image_quality": 70}}
    rq_id = client.post(f"/api/tasks/{task}/data", **sent).json()["rq_id"]
    ended = client.until(f"/api/requests/{rq_id}", lambda got: got.json()["status"] in ("failed", "finished"))
    assert ended["status"] == "failed"
    assert message in ended["message"]
    assert client.get(f"/api/tasks/{task}/data/meta").status_code == 404


def test_no_file_name_leaves_its_folder(client, sandbox):
    task = client.post("/api/tasks", json={"name": "evil", "labels": []}).json()["id"]
    path, tus = f"/api/tasks/{task}/data", {"Tus-Resumable": "1.0.0"}
    client.post(path, headers={"Upload-Start": ""})
    name = __import__("base64").b64encode(b"/../../a/../../../evil.jpg").decode()
    content = drawn()
    made = client.post(
        path + "/", headers={**tus, "Upload-Length": str(len(content)), "Upload-Metadata": f"filename {name}"}
    )
    assert made.headers["upload-filename"] == "a/evil.jpg"
    piece = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert client.patch(made.headers["location"], content=content, headers=piece).status_code == 204
    wrong = client.patch(made.headers["location"], content=content, headers=piece)
    assert wrong.status_code == 409
    assert wrong.headers["upload-offset"] == str(len(content))
    form = [("client_files[0]", ("..\\..\\/tmp/x/../y.jpg", content))]
    client.post(path, headers={"Upload-Multiple": ""}, files=form, data={"image_quality": "70"})
    rq_id = client.post(path, headers={"Upload-Finish": ""}, json={"image_quality": 70}).json()["rq_id"]
    client.until(f"/api/requests/{rq_id}", lambda got: got.json()["status"] == "finished")
    names = [one["name"] for one in client.get(f"{path}/meta").json()["frames"]]
    assert names == ["a/evil.jpg", "y.jpg"]
    strays = [p for p in sandbox.state.root.rglob("*.jpg") if "data" not in p.relative_to(sandbox.state.root).parts]
    assert strays == []


def test_deleted_tasks_leave_nothing_behind(client, sandbox):
    task = client.task([("0.jpg", drawn())])
    frame(client, task, 0)
    chunk(client, f"/api/tasks/{task}", number=0)
    assert client.delete(f"/api/tasks/{task}").status_code == 204
    assert [p for p in sandbox.state.root.rglob("*") if p.is_file() and p.name not in ("secret", "lock")] == []
    assert client.get(f"/api/tasks/{task}/annotations").status_code == 404
