"""Which tools an answer may call."""

from collections.abc import Iterator, Mapping

from gateway.course import Course
from gateway.toolbox.calculator import Calculator
from gateway.toolbox.collection_search import CollectionSearch
from gateway.toolbox.web_search import WebSearch
from gateway.tools import ServerTool, Tool


def tools_on_offer(course: Course) -> tuple[Tool, ...]:
    """The caller's tools, then the mesh's own; none once the answer has made all the calls that it may make."""
    if calls_left(course) <= 0:
        return ()
    return (*course.question.tools, *(own.tool for own in own_tools(course).values()))


def calls_left(course: Course) -> int:
    """How many more calls of tools the answer may make."""
    return course.ports.limits.tools.max_calls - len(course.exchanges)


def own_tools(course: Course) -> Mapping[str, ServerTool]:
    """The mesh's own tools that the question allows, by name; a tool of the caller's takes the place of its namesake.

    Where it does not say, all of them but the web's: what is asked leaves the mesh only where the caller wants that.
    """
    named = course.question.planning.server_tools or (Calculator.tool.name, "search")
    taken = {tool.name for tool in course.question.tools}
    return {own.tool.name: own for own in _every(course) if own.tool.name in named and own.tool.name not in taken}


def misses_tools(course: Course) -> bool:
    """Whether the question names a tool of the mesh's that is not there: the web's without a key, say."""
    there = {own.tool.name for own in _every(course)} | {tool.name for tool in course.question.tools}
    return bool({*course.question.planning.server_tools} - {"none"} - there)


def _every(course: Course) -> Iterator[ServerTool]:
    ports, top_k = course.ports, course.question.retrieval.top_k or course.ports.limits.top_k
    yield Calculator()
    if collections := course.question.planning.search_collections:
        yield CollectionSearch(ports.retriever, collections, top_k, course.cite)
    if ports.web:
        yield WebSearch(ports.web, top_k, course.cite)
