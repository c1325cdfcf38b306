"""torch.hub's door to the weights that are published here or were released with a paper.

    torch.hub.load(".", "lenet5", source="local")
    torch.hub.load(".", "load_pretrained", "lenet5_1998", "blog", source="local")

Each variant that has weights is an entry of its name, without arguments; `load_pretrained` takes the names of paper and
variant. Both give the network with its weights and its preprocessing.
"""

from common.claims import papers as _papers
from common.publishing import pretrained as _pretrained
from common.publishing.pretrained import load_pretrained  # noqa: F401 (an entry)

dependencies = ["torch", "numpy", "scipy", "sklearn", "safetensors", "pydantic", "yaml", "click", "rich"]


def _entry(paper: _papers.Paper, variant: str) -> object:
    def load() -> object:
        return _pretrained.load_pretrained(paper.name, variant)

    load.__doc__ = _pretrained.description(paper, variant)
    return load


for _paper in map(_papers.load_paper, _papers.find_papers()):
    for _variant in _pretrained.loadable(_paper):
        globals()[_variant] = _entry(_paper, _variant)
