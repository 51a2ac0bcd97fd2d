"""What to type to call the mesh, with its addresses filled in."""

from string import Template

from deploy.local.mesh import Mesh

_LINES = Template("""\
ragmesh is up at http://$edge   Ctrl-C or `make down` stops it

  export RAGMESH_TARGET=$edge RAGMESH_TOKEN=$$(cat $token)
  QUESTION='{"question": "What if I lose my hardware key?", "collection": "collections/handbook"}'

  command line
    $bin/ragmesh ingest deploy/samples --collection handbook
    $bin/ragmesh ask "What if I lose my hardware key?" --collection handbook

  curl, as server-sent events
    curl -N http://$edge/v1/answers:sse -H "authorization: Bearer $$RAGMESH_TOKEN" \\
      -H 'content-type: application/json' -d "$$QUESTION"

  grpcurl, or buf curl
    grpcurl -plaintext -H "authorization: Bearer $$RAGMESH_TOKEN" -d "$$QUESTION" \\
      $edge ragmesh.gateway.v1.AnswerService/Ask
    buf curl --protocol grpc --http2-prior-knowledge -H "authorization: Bearer $$RAGMESH_TOKEN" \\
      -d "$$QUESTION" http://$edge/ragmesh.gateway.v1.AnswerService/Ask

  OpenAI, in Python
    client = OpenAI(base_url="http://$edge/v1", api_key=os.environ["RAGMESH_TOKEN"])
    client.chat.completions.create(model="handbook", messages=[{"role": "user", "content": "..."}])

  browser, over gRPC-web
    createClient(AnswerService, createGrpcWebTransport({ baseUrl: "http://$edge" }))

  logs   $data/log     Envoy's admin   http://$admin
""")


def describe(mesh: Mesh, data: str, scripts: str) -> str:
    """The lines for a terminal; `data` and `scripts` are the folders as the reader knows them."""
    admin = mesh.describe()["admin"]
    return _LINES.substitute(edge=mesh.edge, admin=admin, token=f"{data}/token", data=data, bin=scripts)
