"""Models on disk: recognising and reading GraphDef, MetaGraphDef, SavedModel, session bundles and event files."""
