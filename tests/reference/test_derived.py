import pytest


@pytest.mark.parametrize("kind", ["cifar", "imagenet", "rnn"])
def test_derived_networks(kind, request):
    files = sorted(request.config.getoption("reference").glob(f"{kind}_*.npz"))
    pytest.skip(f"no {kind} network to compare with {', '.join(file.name for file in files) or 'files'} yet")
