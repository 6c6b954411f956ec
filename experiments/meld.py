"""MELD: the emotion of each utterance of a dialogue, from its text, with and without context and speakers.

    python -m experiments table meld --data-dir DIR

Weighted F1 of seven emotions on the official test dialogues; 48 % are neutral. Sentence vectors are those of MiniLM,
frozen, computed once. Published rows start from other features (GloVe and a text-CNN trained on these labels, RoBERTa
fine-tuned on them), so they are printed beside ours and reproduced by none.

Expect, 5 seeds a network: majority 31.3, bag of words 46.8 (penalty chosen on validation), own words 54.5 (their mean)
and 55.2 (GRU), MiniLM 55.9 (logistic regression) and 56.3 (MLP) without context, 57.9 as bc-LSTM in context, where the
paper has 56.44 on other features, 58.0 with the party of the speaker. Transformers over the dialogue stay at 55.7 to
56.1, below the MLP on an utterance alone.
"""

import dataclasses
import functools

import numpy as np

from experiments._towers import sentence_vectors, texts_of
from mmjax import fusion
from mmjax.datasets.meld import TRAIN_COUNTS
from mmjax.datasets.raw.words import encode_padded, fit_tokenizer
from mmjax.encoders import BagOfWords, Categories, FeatureMLP, FeatureTransformer, Recurrent, RecurrentText
from mmjax.experiment import Paper, Row, Table
from mmjax.heads import ClassificationHead
from mmjax.layers import GRU, TransformerBlock, final_state
from mmjax.models import Multimodal
from mmjax.stream import by_index, target_items
from mmjax.tasks import Classification
from mmjax.training import Train

DIM, SPEAKERS, PARTIES = 128, 15, 9
WORDS, MAX_WORDS, VOCABULARY = 64, 24, 3_000
ALONE, CONTEXT, SPOKEN = "an utterance alone", "in the context of the dialogue", "with speakers"
BESIDE = "printed beside the rows: other features"
TABLES = "recalled from the papers' tables"
README = "README of declare-lab/conv-emotion"


def with_sentences(dataset):
    """Streams ``sentence`` (MiniLM's vectors) and ``text`` (words of train, short), beside those of speakers."""
    text = {split: batch.streams["text"] for split, batch in dataset.splits.items()}
    sentences = sentence_vectors(dataset, text)
    spoken = {split: texts_of(dataset.tokenizers["text"], stream) for split, stream in text.items()}
    words = fit_tokenizer(spoken["train"].ravel().tolist(), size=VOCABULARY)
    splits = {}
    for split, batch in dataset.splits.items():
        streams = {
            **batch.streams,
            "sentence": sentences[split],
            "text": encode_padded(words, spoken[split], MAX_WORDS),
        }
        splits[split] = batch.replace(streams=streams)
    kinds = {**dataset.card.kinds, "sentence": "feature"}
    card = dataclasses.replace(dataset.card, kinds=kinds)
    return dataclasses.replace(dataset, splits=splits, card=card, tokenizers={"text": words})


def prior(data, seed, members, *, of=None):
    """The logarithm of the shares of the classes in train (of a stream's categories: of those of each), plus one."""
    train = data.splits["train"]
    labels, classes = target_items(train), data.card.num_classes

    def category(batch):
        return np.zeros(int((batch.index >= 0).sum()), int) if of is None else _items(batch, of)

    most = max(category(batch).max() for batch in data.splits.values())
    counts = np.ones((most + 1, classes))
    np.add.at(counts, (category(train), labels), 1)
    shares = np.log(counts / counts.sum(1, keepdims=True))
    return {split: shares[category(data.splits[split])] for split in ("validation", "test")}


def _items(batch, name):
    return by_index(batch.streams[name].values, batch.index)


def bag_of_words(data, seed, members, *, C=1.0):
    """Logistic regression on TF-IDF of words and pairs of words (scikit-learn's defaults)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def texts(split):
        batch = data.splits[split]
        mask = by_index(batch.streams["text"].mask, batch.index)
        rows = zip(_items(batch, "text"), mask)
        return [" ".join(data.tokenizers["text"].id_to_token(i) for i in ids[real]) for ids, real in rows]

    vectors = TfidfVectorizer(ngram_range=(1, 2))
    classifier = make_pipeline(vectors, LogisticRegression(C=C, max_iter=2_000))
    classifier.fit(texts("train"), target_items(data.splits["train"]))
    return {split: classifier.predict_log_proba(texts(split)) for split in ("validation", "test")}


def logistic_sentences(data, seed, members, *, C=1.0):
    """Logistic regression on the sentence vectors of each utterance."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2_000))
    classifier.fit(_items(data.splits["train"], "sentence"), target_items(data.splits["train"]))
    return {s: classifier.predict_log_proba(_items(data.splits[s], "sentence")) for s in ("validation", "test")}


lstm = functools.partial(Recurrent, dim=DIM, bidirectional=True, dropout_rate=0.3)
dense = functools.partial(FeatureMLP, dim=DIM, hidden_dims=(DIM,), dropout_rate=0.3)
attention = functools.partial(FeatureTransformer, dim=DIM, num_layers=2, block=TransformerBlock(dropout_rate=0.3))
encoders = {
    "sentence": dense(),
    "speaker": Categories(16, SPEAKERS + 1),
    "party": Categories(16, PARTIES, unknown_id=PARTIES - 1),
}


def network(joint, streams=("sentence",), **changed):
    """Encoders of each step's streams, what makes one sequence of them, a linear head per step."""
    own = {name: changed.get(name, encoders.get(name)) for name in streams}
    method = fusion.EarlyConcat(DIM, joint=joint, hidden_dims=None if joint else (), dropout_rate=0.3)
    return Multimodal(own, method, ClassificationHead(7, pool=None, dropout_rate=0.3))


def inverse_root(counts):
    """Class weights by the root of the inverse frequency, of mean 1 over the items of train."""
    weights = np.asarray(counts, float) ** -0.5
    return tuple(float(w) for w in weights * sum(counts) / (weights * counts).sum())


def rows():
    """All rows."""
    fitted = functools.partial(Row, varies=False, section=ALONE)
    yield fitted("majority (prior of the classes)", fit=prior, streams=("text",), baseline=False)
    yield fitted("prior of the speaker", fit=functools.partial(prior, of="speaker"), streams=("speaker",))
    yield fitted("bag of words (TF-IDF, logistic)", fit=bag_of_words, streams=("text",), trials=5)
    yield fitted("MiniLM, logistic", fit=logistic_sentences, streams=("sentence",), trials=5)
    alone = functools.partial(Row, section=ALONE)
    yield alone("mean of own word vectors", streams=("text",), model=network(None, ("text",), text=_bag()))
    yield alone("own words, GRU", streams=("text",), model=network(None, ("text",), text=_gru()), seeds=3)
    yield alone("MiniLM, MLP", streams=("sentence",), model=network(None))
    context = functools.partial(Row, section=CONTEXT)
    hierarchical = network(lstm(), ("text",), text=_gru())
    yield context("own words, GRU, LSTM over the dialogue", streams=("text",), model=hierarchical, seeds=3)
    paper = functools.partial(Paper, reason="sentence vectors of another network")
    bc_lstm = paper(56.44, f"bc-LSTM, text, {TABLES}")
    yield context("MiniLM, bc-LSTM", streams=("sentence",), model=network(lstm()), paper=bc_lstm)
    causal = network(Recurrent(DIM, dropout_rate=0.3))
    yield context("MiniLM, LSTM over what was said before", streams=("sentence",), model=causal)
    yield context("MiniLM, transformer", streams=("sentence",), model=network(attention()))
    weighted = Classification(7, class_weights=inverse_root(TRAIN_COUNTS))
    name = "MiniLM, transformer, rare classes weighted"
    yield context(name, streams=("sentence",), model=network(attention()), task=weighted)
    spoken = functools.partial(Row, section=SPOKEN)
    both, three = ("party", "sentence"), ("party", "sentence", "speaker")
    yield spoken("MiniLM and speaker, MLP", streams=three[1:], model=network(None, three[1:]))
    yield spoken("MiniLM and party, bc-LSTM", streams=both, model=network(lstm(), both))
    yield spoken("MiniLM, party and speaker, bc-LSTM", streams=three, model=network(lstm(), three))
    yield spoken("MiniLM and party, transformer", streams=both, model=network(attention(), both))
    yield spoken("MiniLM, party and speaker, transformer", streams=three, model=network(attention(), three))


def _bag():
    return BagOfWords(DIM, VOCABULARY, hidden_dims=(WORDS,), dropout_rate=0.3)


def _gru():
    return RecurrentText(WORDS, VOCABULARY, cell=GRU, bidirectional=True, pool=final_state, dropout_rate=0.3)


REFERENCES = [
    (name, Paper(value, source, checked=source == README, cannot_run=BESIDE))
    for name, value, source in (
        ("text-CNN", 55.02, TABLES),
        ("DialogueRNN, text", 57.03, TABLES),
        ("DialogueGCN, text", 58.10, TABLES),
        ("RoBERTa, fine-tuned", 62.02, README),
        ("RoBERTa DialogueRNN", 63.61, README),
        ("COSMIC", 65.21, README),
    )
]

TABLE = Table(
    title="MELD, seven emotions, text of dialogues, weighted F1",
    dataset="meld",
    options={"tokenizer": "minilm", "speakers": SPEAKERS},
    view=with_sentences,
    task=Classification(num_classes=7),
    train=Train(epochs=20, batch_size=16, learning_rate=1e-3, select="f1_weighted"),
    seeds=5,
    rows=rows(),
    references=REFERENCES,
)
