"""Which backend runs a model."""

from embedder_svc.encoding import Encoder, ModelOptions, Reranker

# Importing an adapter imports its library, which takes seconds for torch: each is imported where it is chosen.


def load_encoder(options: ModelOptions) -> Encoder:
    """The encoder, loaded and warm; blocks for as long as that takes and raises LoadError."""
    from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

    return SentenceTransformerEncoder.load(
        options.model,
        options.name,
        options.load,
        prompts=options.prompts,
        matryoshka_dimensions=options.matryoshka_dimensions,
    )


def load_reranker(options: ModelOptions) -> Reranker:
    """The cross-encoder, loaded and warm; blocks for as long as that takes and raises LoadError."""
    from embedder_svc.cross_encoder_reranker import CrossEncoderReranker

    return CrossEncoderReranker.load(options.model, options.name, options.load)
