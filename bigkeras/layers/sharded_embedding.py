"""An embedding whose table is several variables, for tables that no single parameter server should hold."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bigkeras")
class ShardedEmbedding(keras.layers.Layer):
    """Token ids int `(…)` → `(…, width)`, from `shards` tables: row i is row i // shards of table i % shards.

    The answers and the training are those of one table. Under `--strategy parameter_server` each table lies on a server
    of its own, in turn, and only the rows that a batch has travel to the worker.
    """

    def __init__(self, input_dim: int, output_dim: int, shards: int, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # whole tables would be cast, and travel, where a batch's rows are wanted
        self.input_dim, self.output_dim, self.shards = input_dim, output_dim, shards
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, input_shape) -> None:
        """Makes the tables, as many rows in each as there are ids for it."""
        self.on_servers = _on_servers()  # where the tables lie, which the chief's validation does not tell
        rows = [-(-(self.input_dim - i) // self.shards) for i in range(self.shards)]
        self.tables = [
            self.add_weight(name=f"table{i}", shape=(count, self.output_dim), initializer=start)
            for i, (count, start) in enumerate(zip(rows, self._starts(), strict=True))
        ]

    def _starts(self) -> list:
        """An initializer for each table, with a seed of its own: with one seed all would begin alike."""
        initializer, config = type(self.embeddings_initializer), self.embeddings_initializer.get_config()
        config |= {"seed": None} if "seed" in config else {}
        return [initializer.from_config(config) for _ in range(self.shards)]

    def call(self, tokens):
        """Gives the rows."""
        if self.on_servers:  # XLA compiles no lookup in several tables, and without servers nothing travels
            import tensorflow as tf

            variables = [table.value for table in self.tables]
            rows = tf.compat.v1.nn.embedding_lookup(variables, ops.cast(tokens, "int32"), partition_strategy="mod")
            return ops.cast(rows, self.compute_dtype)
        places, of = tokens // self.shards, (tokens % self.shards)[..., None]
        total = 0.0
        for i, table in enumerate(self.tables):
            rows = ops.take(table, ops.minimum(places, table.shape[0] - 1), axis=0)
            total = total + ops.where(of == i, rows, ops.zeros_like(rows))
        return ops.cast(total, self.compute_dtype)

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"input_dim": self.input_dim, "output_dim": self.output_dim, "shards": self.shards}
        own["embeddings_initializer"] = keras.initializers.serialize(self.embeddings_initializer)
        return {**super().get_config(), **own}


def _on_servers() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy)
