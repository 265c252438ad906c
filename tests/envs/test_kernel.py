"""The cache of compiled kernels goes by the sources of all of them, not by one file's."""

from envs import kernel


def test_a_change_in_any_kernel_source_is_another_cache(tmp_path, monkeypatch):
    sources, cache = tmp_path / "sources", tmp_path / "cache"
    (sources / "agents").mkdir(parents=True)
    (sources / "envs").mkdir()
    (sources / "envs" / "a.py").write_text("caller")
    callee = sources / "agents" / "b.py"
    callee.write_text("old")
    monkeypatch.setattr(kernel, "_ROOT", sources)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
    before = kernel._cache_folder()
    assert kernel._cache_folder() == before
    callee.write_text("new")
    after = kernel._cache_folder()
    assert after != before
    assert [path.name for path in cache.iterdir()] == [after.name]  # the stale one is gone


def test_where_nothing_can_be_written_numba_s_own_place_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert kernel._cache_folder() is None
