"""How often a model's vision encoder runs, and over how much."""


class Encoded(list):
    """Tiles of each encoder run of one engine's model."""

    def __init__(self, monkeypatch, engine):
        model = engine.runner.model
        encode = model.encode

        def counting(**kwargs):
            self.append(len(kwargs["pixel_values_flat"]))
            return encode(**kwargs)

        monkeypatch.setattr(model, "encode", counting)
