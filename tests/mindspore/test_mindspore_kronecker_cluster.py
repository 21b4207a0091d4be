"""What processes send each other about inverses: two of them as threads, which call the collectives in step."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from hessiod.backends_mindspore.kronecker import blocks
from hessiod.backends_mindspore.kronecker.cluster import Cluster
from hessiod.backends_mindspore.kronecker.discover import discover
from hessiod.backends_mindspore.kronecker.sums import Sums
from hessiod.core.errors import NonFinite
from hessiod.core.kronecker.owners import triangle

SETTINGS = blocks.Settings(1e-3, "cholesky", None)


class Threads:
    """The collectives of ``size`` threads."""

    def __init__(self, size):
        self.barrier, self.rows = threading.Barrier(size, timeout=20), [None] * size

    def gathered(self, rank, tensor):
        self.rows[rank] = tensor.asnumpy()
        self.barrier.wait()
        found = list(self.rows)
        self.barrier.wait()
        return found


class Process:
    """One of them, with what a Cluster asks of processes."""

    def __init__(self, threads, rank):
        self.threads, self.rank, self.size = threads, rank, len(threads.rows)

    def all_reduce(self, tensor):
        return Tensor(np.sum(self.threads.gathered(self.rank, tensor), axis=0))

    def sent(self, tensor, owner):
        return Tensor(self.threads.gathered(self.rank, tensor)[owner])


def layers():
    net = nn.SequentialCell(nn.Dense(5, 4), nn.Dense(4, 6), nn.Embedding(9, 3))
    params: list[Parameter] = net.trainable_params()
    return discover(net, {id(param): param for param in params}, ()).layers


def on_each(work, size=2):
    """``work(cluster)`` on each process, with a Cluster of its own over the same layers."""
    shared, threads = layers(), Threads(size)
    clusters = [Cluster(Process(threads, rank), "owner", shared, None) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return shared, clusters, list(pool.map(lambda cluster: work(cluster, shared), clusters))


def factors(layer, broken):
    """Positive definite factors, or ones whose A has an eigenvalue of -1."""
    generator = np.random.default_rng(0)
    found = []
    for shape in layer.factor_shapes().values():
        rows = generator.standard_normal((20, shape[-1])).astype(np.float32)
        found.append(rows.T @ rows / 20 if len(shape) > 1 else np.abs(rows).mean(0))
    if broken:
        found[0] = np.diag(np.linspace(-1.0, 2.0, len(found[0])).astype(np.float32))
    return tuple(found)


def test_an_inverse_that_fails_on_one_process_has_its_damping_raised_for_all(caplog):
    def work(cluster, shared):
        due = {layer: factors(layer, broken=layer is shared[0]) for layer in shared}
        return cluster.inverses(due, lambda layer, a, g: blocks.inverted(layer, a, g, SETTINGS))

    shared, clusters, (one, two) = on_each(work)
    assert clusters[0].owner_of[shared[0]] != clusters[0].owner_of[shared[1]]  # the broken layer is one process's
    assert caplog.text.count("is not positive definite; damping raised") == 1
    for layer in shared:
        assert one[layer]["damping"] == two[layer]["damping"]
        assert (one[layer]["damping"] > SETTINGS.damping) is (layer is shared[0])
        for name in ("inverse_a", "inverse_g"):
            for ours, theirs in zip(one[layer][name], two[layer][name], strict=True):
                assert np.isfinite(ours).all()
                assert ours.tobytes() == theirs.tobytes()


def test_an_inverse_that_does_not_exist_on_one_process_is_an_error_on_all():
    def work(cluster, shared):
        due = {layer: factors(layer, broken=False) for layer in shared}
        due[shared[0]] = tuple(np.full_like(factor, np.nan) for factor in due[shared[0]])
        with pytest.raises(NonFinite) as error:
            cluster.inverses(due, lambda layer, a, g: blocks.inverted(layer, a, g, SETTINGS))
        return str(error.value)

    shared, clusters, messages = on_each(work)
    owner = clusters[0].owner_of[shared[0]]
    assert f"layer {shared[0].name}: its factors have no inverse" in messages[owner]
    assert "on a process whose message says which one" in messages[1 - owner]


def test_bytes_sent_are_the_formulas():
    """Statistics and inverses as triangles: 4 (1 + sum T(d)) and, for the inverses, a flag and 4 numbers a layer."""

    def work(cluster, shared):
        wanted = {layer: layer.statistics for layer in shared}
        sums = Sums(wanted, empirical=False)
        sums.add({la: {**dict(zip("ag", factors(la, False), strict=True)), "rows": 20.0} for la in shared}, 20, 1.0)
        cluster.share(sums)
        assert sums.targets == 40
        statistics = cluster.bytes_sent
        due = {layer: factors(layer, False) for layer in shared}
        cluster.inverses(due, lambda layer, a, g: blocks.inverted(layer, a, g, SETTINGS))
        return statistics, cluster.bytes_sent - statistics

    sizes = triangle(6) + triangle(4) + triangle(5) + triangle(6) + 9 + triangle(3)  # Dense, Dense, Embedding
    _, _, found = on_each(work)
    assert found == [(4 * (1 + sizes + 3), 4 * (1 + sizes + 4 * 3))] * 2  # and three numbers of rows
