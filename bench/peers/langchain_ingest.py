"""A folder taken in with LangChain as its documentation has it: a loader by ending, a splitter, MiniLM, Milvus Lite.

`python langchain_ingest.py FOLDER DATABASE MODEL` prints a JSON object: the paths read, those that could not be and
why, the chunks, and the seconds, by the clock and of the CPU, from the first file to the last row. It runs in an
environment of its own.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from langchain_community.document_loaders import (
        BSHTMLLoader,
        CSVLoader,
        Docx2txtLoader,
        NotebookLoader,
        PyPDFLoader,
        TextLoader,
    )
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_milvus import Milvus
from langchain_text_splitters import RecursiveCharacterTextSplitter

BATCH = 128
"""Chunks added in one call: Milvus Lite drops a connection over which nothing was sent for some 30 seconds."""
TEXT_ENDINGS = (".txt", ".md", ".py", ".js", ".go", ".java", ".proto", ".yaml", ".json")


def loader(path: Path) -> BaseLoader:
    """The usual loader for a file's ending; raises ValueError where there is none that works without a download."""
    match path.suffix:
        case ".pdf":
            return PyPDFLoader(path)
        case ".docx":
            return Docx2txtLoader(path)
        case ".html":
            return BSHTMLLoader(path)
        case ".csv":
            return CSVLoader(path, autodetect_encoding=True)
        case ".ipynb":
            return NotebookLoader(path)
        case suffix if suffix in TEXT_ENDINGS:
            return TextLoader(path, autodetect_encoding=True)
    raise ValueError(f"no loader for {path.suffix or 'a file without ending'}")


def load(folder: Path) -> tuple[dict[str, list[Document]], dict[str, str]]:
    """The documents of each file that could be read, and why others could not, by path below the folder."""
    read: dict[str, list[Document]] = {}
    failed: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        try:
            documents = loader(path).load()
        except Exception as error:  # noqa: BLE001 - each loader raises its own libraries' errors
            failed[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        if any(document.page_content.strip() for document in documents):
            # The collection's fields are those of the first row: only what every loader gives can be kept.
            read[name] = [Document(each.page_content, metadata={"source": name}) for each in documents]
        else:
            failed[name] = "no text"
    return read, failed


def main() -> None:
    """Take the folder in and say what became of it."""
    folder, database, model = sys.argv[1:]
    embeddings = HuggingFaceEmbeddings(model_name=model)
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    read, failed = load(Path(folder))
    loaded_s = time.perf_counter()
    chunks = splitter.split_documents([document for documents in read.values() for document in documents])
    split_s = time.perf_counter()
    store = Milvus(embedding_function=embeddings, connection_args={"uri": database})
    for first in range(0, len(chunks), BATCH):
        store.add_documents(chunks[first : first + BATCH])
    ended_s, cpu_s = time.perf_counter(), time.process_time() - began_cpu_s
    stages = {"parse": loaded_s - began_s, "chunk": split_s - loaded_s, "embed and index": ended_s - split_s}
    answer = {"wall_s": ended_s - began_s, "cpu_s": cpu_s, "stages_s": stages, "chunks": len(chunks)}
    print(json.dumps({**answer, "read": list(read), "failed": failed}))


if __name__ == "__main__":
    main()
