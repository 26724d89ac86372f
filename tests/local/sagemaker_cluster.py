"""A trainer whose hosts must find each other, for the tests of training jobs on several hosts."""

CLUSTER = """
import json, os, pathlib, signal, socket, sys, time

base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
resources = json.loads((base / "input/config/resourceconfig.json").read_text())
parameters = json.loads((base / "input/config/hyperparameters.json").read_text())
hosts, me = resources["hosts"], resources["current_host"]
rank, mode = hosts.index(me), parameters["mode"]
assert os.environ["HOSTNAME"] == me
address = (hosts[0], int(parameters["port"]))


def terminated(*_):
    (base / "checkpoints" / f"terminated-{rank}.pt").write_text("saved in time")
    os._exit(143)


signal.signal(signal.SIGTERM, terminated)
# Every host says hello to the first, from its own address, and gets the number of hosts that came.
if rank == 0:
    server = socket.create_server(address)
    peers = [server.accept() for _ in hosts[1:]]
    assert sorted(place[0] for _, place in peers) == sorted(hosts[1:]), peers
    for peer, _ in peers:
        peer.sendall(str(len(hosts)).encode())
    met = len(hosts)
else:
    deadline = time.monotonic() + 60
    while True:
        try:
            client = socket.create_connection(address, source_address=(me, 0))
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    met = int(client.recv(10))
print(f"host {me} met={met}", flush=True)
files = sorted(path.name for path in (base / "input/data").rglob("*") if path.is_file())
seen = {"files": files, "resources": resources,
        "checkpoints": sorted(path.name for path in (base / "checkpoints").iterdir())}
(base / "checkpoints" / f"rank-{rank}.pt").write_text(str(met))
(base / "output/data" / f"seen-{rank}.json").write_text(json.dumps(seen))
if mode == "wait":
    time.sleep(120)
if mode == "fail":
    if rank == 1:
        (base / "output/failure").write_text("rank 1: loss is NaN at step 7")
        sys.exit(4)
    time.sleep(120)
if mode == "lost":
    if rank == 1:
        (base / "output/failure").write_text("rank 1: out of memory")
        client.close()
        time.sleep(2)
        sys.exit(5)
    assert peers[0][0].recv(1) == b""
    (base / "output/failure").write_text("rank 0: connection closed by peer")
    sys.exit(1)
if mode == "clash" or rank == 0:
    (base / "model/weights.json").write_text(json.dumps({"met": met}))
if rank == 1:
    (base / "model/extra.json").write_text("{}")
"""
