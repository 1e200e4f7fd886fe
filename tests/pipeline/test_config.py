"""Recipes and overrides: what is refused, with which words, and what changes what."""

from pathlib import Path

import pytest

from pipeline import config as settings
from pipeline.failures import BadInput
from pipeline.plan import stages

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = """
root = "runs/x"
[crawl]
user_agent = "test/1.0 (+http://localhost/)"
submissions = ["a.zst"]
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_overrides_are_toml_or_else_text(recipe: Path):
    config = settings.load(
        recipe,
        [
            "crawl.min_karma=5",
            "crawl.karma_rule=any",
            "crawl.until=2017-12-31",
            'crawl.submissions=["b.zst", "c.zst"]',
            'crawl.resolve."*.test"="127.0.0.1:80"',
            "training.model=gpt2-xl",
            "dedup.threshold=0.7",
        ],
    )
    assert (config.crawl.min_karma, config.crawl.karma_rule) == (5, "any")
    assert str(config.crawl.until) == "2017-12-31"
    assert config.crawl.resolve == {"*.test": "127.0.0.1:80"}
    assert (config.training.model, config.dedup.threshold) == ("gpt2-xl", 0.7)


def test_relative_paths_are_taken_from_the_working_directory(recipe: Path, tmp_path: Path):
    config = settings.load(
        recipe,
        [
            "crawl.archives=['w.warc.gz', 's3://b/w.gz', 'zip://w.gz::w.zip', 'zip://w.gz::s3://b/w.zip']",
            "crawl.ca_file=ca.pem",
            "crawl.archive_base=cc",
            "crawl.journal=journal",
            "compare_domains=domains.txt",
        ],
    )
    assert config.compare_domains == str(tmp_path / "domains.txt")
    assert settings.load(recipe).compare_domains is None
    assert config.root == str(tmp_path / "runs/x")
    assert config.crawl.submissions == (str(tmp_path / "a.zst"),)
    assert config.crawl.archives == (
        str(tmp_path / "w.warc.gz"),
        "s3://b/w.gz",
        f"zip://w.gz::{tmp_path}/w.zip",
        "zip://w.gz::s3://b/w.zip",
    )
    assert config.crawl.ca_file == str(tmp_path / "ca.pem")
    assert config.crawl.archive_base == str(tmp_path / "cc")
    assert config.crawl.journal == str(tmp_path / "journal")
    assert settings.load(recipe).crawl.archive_base == "https://data.commoncrawl.org/"


@pytest.mark.parametrize(
    "word, message",
    [
        ("crawl.min_karm=5", "crawl: unknown key min_karm"),
        ("crawl.min_karma=many", "crawl.min_karma: Expected int"),
        ("crawl.min_karma=-1", "crawl.min_karma: Expected int >= 0"),
        ("crawl.karma_rule=most", "crawl.karma_rule: Invalid enum value 'most'"),
        ("dedup.bands=0", "dedup.bands: Expected int >= 1"),
        ("dedup.bands=100", "more than the 126 of dedup.permutations"),
        ("training.zero_stage=7", "training.zero_stage: Expected int <= 3"),
        ("training.model=gpt3", "training.model: "),
        ("training.batch_tokens=1000", "batch_tokens 1000 is not a multiple"),
        ("crawl.user_agent=Mozilla", "user_agent"),
        ("root=s3://bucket/run", "root: s3://bucket/run: must be a folder"),
        ("root=", "root: is empty"),
        ("root=/etc/passwd/run", "root: /etc/passwd/run: /etc/passwd is not a folder"),
        ("dedup.seed=5000000000", "dedup.seed: Expected int <= 4294967295"),
        ("training.learning_rate=inf", "training.learning_rate: Expected float <= 10.0"),
        ("crawl.timeout_s=inf", "crawl.timeout_s: expected a finite number"),
        ("training.clip=inf", "training.clip: Expected float <= 1000000000.0"),
        ("training.weight_decay=nan", "training.weight_decay: "),
        pytest.param(f"training.steps={'9' * 5000}", "training.steps: Expected int", id="digits"),
        pytest.param(f"training.steps={'[' * 3000}", "training.steps: Expected int", id="brackets"),
        pytest.param(f"training.steps={'9' * 400}", "training.steps: expected", id="large"),
        pytest.param(f"crawl{'.a' * 1200}=1", "", id="deep"),
        ("nonsense", "nonsense: expected key=value"),
        ("a b=1", "'a b' is no key"),
        ("crawl=1", "crawl: Expected object"),
        ("rot=x", "unknown key rot"),
    ],
)
def test_bad_words_are_refused_with_their_path(recipe: Path, word: str, message: str):
    with pytest.raises(BadInput) as raised:
        settings.load(recipe, [word])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("root = ", "not TOML"),
        ("", "root"),
        ("\xff", "not TOML"),
        pytest.param(f"root = {'9' * 5000}", "not TOML", id="digits"),
        pytest.param(f"root = {'[' * 3000}", "not TOML", id="brackets"),
    ],
)
def test_bad_recipes_are_refused_with_their_file(recipe: Path, text: str, message: str):
    recipe.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=f"recipe.toml: .*{message}"):
        settings.load(recipe)


def test_keys_without_end_are_refused(recipe: Path):
    deep = f"crawl{'.a' * 3000}"
    with pytest.raises(BadInput, match=r"recipe\.toml.* nested too deep"):
        settings.load(recipe, [f"{deep}=1", f"{deep}=2"])


def test_only_what_the_recipe_says_is_blamed_on_the_recipe(recipe: Path):
    def fault(*words: str) -> str:
        with pytest.raises(BadInput) as raised:
            settings.load(recipe, words)
        return str(raised.value)

    assert fault("crawl.min_karma=many") == "crawl.min_karma: Expected int, got str"
    assert fault("crawl.min_karm=1") == "crawl: unknown key min_karm"
    recipe.write_text(RECIPE + "min_karma = -1\n")
    assert fault() == f"{recipe}: crawl.min_karma: Expected int >= 0"
    assert fault("training.steps=5") == fault()
    assert fault("crawl.min_karma=many") == "crawl.min_karma: Expected int, got str"
    settings.load(recipe, ["crawl.min_karma=3"])


@pytest.mark.parametrize(
    "word, message",
    [
        ("crawl.user_agent=\udcff", "crawl.user_agent: is not UTF-8"),
        ("crawl.\udcff=1", "crawl.\\udcff: is not UTF-8"),
        (r'root="a\u0000b"', r"root: 'a\x00b': holds a null byte"),
        (r'compare_domains="a\u0000"', r"compare_domains: 'a\x00': holds a null byte"),
        (r'crawl.submissions=["a\u0000"]', r"crawl.submissions: 'a\x00': holds a null byte"),
    ],
)
def test_words_that_no_file_can_hold_are_refused(recipe: Path, word: str, message: str):
    with pytest.raises(BadInput) as raised:
        settings.load(recipe, [word])
    assert str(raised.value) == message


def test_a_root_that_cannot_be_one_is_refused(recipe: Path, monkeypatch):
    (recipe.parent / "run").mkdir()
    with pytest.raises(BadInput, match=r"^root: .*recipe\.toml is not a folder$"):
        settings.load(recipe, [f"root={recipe}"])
    for long in ("a" * 300, "a/" * 3000):
        with pytest.raises(BadInput, match=r"^root: .*File name too long$"):
            settings.load(recipe, [f"root={long}"])

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(BadInput, match=r"^root: .*run: Permission denied$"):
        settings.load(recipe, ["root=run"])


def test_a_root_that_cannot_be_written_is_refused_and_none_is_made(recipe: Path, monkeypatch):
    settings.check_writable(settings.load(recipe))
    assert list(recipe.parent.iterdir()) == [recipe]

    def read_only(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(BadInput, match=r"^root: .*x: cannot be written: Read-only file system$"):
        settings.check_writable(settings.load(recipe))


def test_a_missing_recipe_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="no such recipe"):
        settings.load(tmp_path / "none.toml")
    with pytest.raises(BadInput, match="directory"):
        settings.load(tmp_path)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_house_are_good(recipe: Path):
    settings.load(recipe, ["crawl.user_agent='a/1 (+http://b/)'"])


def test_every_marked_setting_names_a_dataset_of_the_plan(recipe: Path):
    config = settings.load(recipe)
    known = {stage.makes for stage in stages(config, [], [])} | {"training"}
    marks = {name for _, _, datasets in settings._fields(config, "") for name in datasets}
    assert marks <= known
    assert {"links", "pages", "pairs", "corpus"} <= marks


def test_only_what_changes_content_is_content(recipe: Path):
    config = settings.load(recipe)
    assert set(settings.content(config, "pairs")) == {"dedup.ngram", "dedup.bands", "dedup.rows"}
    assert set(settings.content(config, "signatures")) == {
        "dedup.ngram", "dedup.seed", "dedup.permutations"
    }  # fmt: skip
    rules = {name for name in settings.content(config, "corpus") if "_" in name or "lang" in name}
    assert set(settings.content(config, "corpus")) - rules == {"corpus.seed"}
    assert rules - set(settings.content(config, "duplicates")) == {"corpus.validation_share"}
    assert set(settings.content(config, "duplicates")) - rules == {
        "dedup.threshold", "dedup.related"
    }  # fmt: skip
    assert "corpus.min_words" in settings.content(config, "duplicates")
    assert "corpus.validation_share" not in settings.content(config, "duplicates")
    hashed = {path for stage in stages(config, [], []) for path in stage.settings}
    assert "crawl.min_karma" in hashed
    recorded = {"root", "workers", "crawl.timeout_s", "crawl.user_agent", "crawl.resolve"}
    recorded |= {"compare_domains"}
    assert not hashed & recorded


def test_every_field_says_what_it_does():
    """A docstring stands under every field of the tree, since a recipe's reader meets the field
    first."""
    import ast

    root = Path(__file__).parents[2]
    for package in ("crawl", "dedup", "training", "pipeline"):
        tree = ast.parse((root / package / "config.py").read_text())
        for branch in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            for field, after in zip(branch.body, [*branch.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(after, ast.Expr), f"{branch.name}.{ast.unparse(field.target)}"


def test_passwords_are_not_shown_or_kept(recipe: Path):
    config = settings.load(
        recipe,
        [
            "crawl.proxy=http://me:s3c:r@t@proxy.example:3128",
            'crawl.submissions=["https://me:s3cret@dumps.example/a.zst", "https://a.b/x:y@z"]',
        ],
    )
    told = settings.tree(config)["crawl"]
    assert told["proxy"] == "http://me:***@proxy.example:3128"
    assert told["submissions"] == ["https://me:***@dumps.example/a.zst", "https://a.b/x:y@z"]
    assert config.crawl.proxy == "http://me:s3c:r@t@proxy.example:3128"
    with pytest.raises(BadInput) as raised:
        settings.load(recipe, ["crawl.proxy=https://me:s3cret@proxy.example:3128"])
    assert "s3cret" not in str(raised.value)
