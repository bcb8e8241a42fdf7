"""Speech to text: hear a recording and write down what is said.

Recordings become log-mel spectrograms by the model's own feature extractor. The decoder is shown
the transcript and names each of its tokens from those before; where there are no transcripts, what
the dense model itself hears takes their place.

Shapes: B recordings, M mel channels, F frames, T positions of the decoder, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.errors import DataError, RequestError
from prunepath.tasks.task import Counts, DataRequest, Metric
from prunepath.tasks.written import Written

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.progress import Progress

__all__ = ["SPEECH", "SPEECH_TOKENS", "Speech", "SpeechTokens"]

_OWN_TOKENS = 64
_DUMMY_TOKENS = 16


class Speech(Written):
    """Write down what is said; the word error rate is by the package `jiwer`."""

    name = "speech"
    summary = "write down what is said in a recording; word error rate"
    auto_classes = ("AutoModelForSpeechSeq2Seq",)
    architectures = ("ForSpeechSeq2Seq", "WhisperForConditionalGeneration")
    counts = Counts(windows=64, refit=16, holdout=8, moments=64, evaluation=None, batch=4)
    metric_name = "wer"
    higher_is_better = False

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        from prunepath.data.audio import read_recordings
        from prunepath.tasks.decoding import decoder_inputs, own_answers
        from prunepath.tasks.hearing import (
            Heard,
            extractor_of,
            longest_answer,
            spectrograms,
            transcribed,
        )

        extractor = extractor_of(opened)
        if data is None:
            raise DataError(
                "the task 'speech' has no data of its own; give a folder of .wav files, or a .csv "
                "file of their paths and transcripts, with --data (data=...)"
            )
        if request.split is not None:
            raise RequestError(
                f"split='{request.split}' was asked for, but folders and tables of recordings have "
                "no splits; leave it out"
            )
        found = read_recordings(
            data,
            rate=int(extractor.sampling_rate),
            count=request.count,
            extra=request.extra,
            field=request.field,
            label_field=request.label_field,
            labels=request.labels,
            seed=request.seed,
        )
        inputs, notes = spectrograms(extractor, found)
        said = tuple(item.transcript or "" for item in found.items)
        if all(said):
            labels, what = transcribed(opened, said), "recordings with transcripts"
        else:
            limit = min(_OWN_TOKENS, longest_answer(opened.model))
            labels = own_answers(opened.model, inputs, limit=limit, batch=self.counts.batch)
            said, what = (), "recordings, written down by the dense model"
        return Heard(
            inputs={**inputs, **decoder_inputs(opened.model, labels)},
            labels=labels if request.labels else None,
            references=said,
            description=f"{found.description}, {len(found.items)} {what}",
            notes=(*found.notes, *notes),
            tokenizer=opened.tokenizer,
        )

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        """Noise of the length the encoder takes; `window` counts tokens of the decoder."""
        import torch

        from prunepath.tasks.decoding import random_decoder_inputs
        from prunepath.tasks.hearing import longest_answer

        config = model.config
        shape = (count, config.num_mel_bins, 2 * config.max_source_positions)
        sound = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        width = min(_DUMMY_TOKENS if window is None else window, longest_answer(model))
        return Samples(
            inputs={"input_features": sound, **random_decoder_inputs(model, count, width, seed)},
            description="noise",
        )

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        from prunepath.tasks.hearing import typed

        logits: Tensor = model(**typed(model, inputs), use_cache=False).logits
        return logits

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Word error rate in percent, without regard to case and punctuation.

        Raises:
            RequestError: the samples have no transcripts.
            MissingExtraError: `jiwer` is not installed.
        """
        from prunepath.extras import require_extra
        from prunepath.tasks.hearing import Heard, hear, plain_words

        library = require_extra("jiwer", "speech", "the word error rate (task 'speech')")
        if not isinstance(samples, Heard) or not samples.references:
            raise RequestError(
                "transcripts are needed, but these samples were read without; read them with labels"
            )
        heard = [plain_words(text) for text in hear(self, model, samples, progress)]
        said = [plain_words(text) for text in samples.references]
        if not all(said):
            raise DataError(
                "a transcript holds no word (nothing but punctuation); remove that recording"
            )
        found = library.process_words(said, heard)
        words = found.hits + found.substitutions + found.deletions
        return Metric(
            name=self.metric_name,
            value=100.0 * found.wer,
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others={"words": float(words)},
        )


class SpeechTokens(Speech):
    """The same, measured by the tokens of the transcript, which needs no further package."""

    name = "speech-tokens"
    summary = "write down what is said in a recording; accuracy per token of the transcript"
    metric_name = "token_accuracy"
    higher_is_better = True

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Tokens that are the likeliest after the right ones before, in percent.

        Raises:
            RequestError: the samples have no labels.
            NumericsError: an output is not finite.
        """
        from prunepath.tasks.decoding import NO_LABEL, needed_labels
        from prunepath.tasks.token_scores import score_tokens

        found = score_tokens(self, model, samples, needed_labels(samples), NO_LABEL, progress)
        return Metric(
            name=self.metric_name,
            value=found.accuracy,
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others={"nll": found.nll, "tokens": float(found.num_tokens)},
        )


SPEECH = Speech()
SPEECH_TOKENS = SpeechTokens()
