"""Small tokenizers of the two kinds that hub models have."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = ["Will the user like Toy Story? Yes", "No, the user will not. Yes or No: No"] * 20


def byte_level():
    """A tokenizer of GPT-2's kind: a word after a space is another token; no padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def sentence_piece():
    """A tokenizer of T5's kind: every text begins a word; an end token is added."""
    words = {f"▁{word}" for text in CORPUS for word in text.replace("?", " ?").split()}
    pieces = ["<pad>", "</s>", "<unk>", *sorted(words | set("▁?,.:</>abcdefghijklmnopqrstuvwxyz"))]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(len(piece) == 1)) for piece in pieces], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
