// What the openai package for Node makes of the mesh, as one JSON object.
import OpenAI from "openai";

const [question, collection] = process.argv.slice(2);
const encoder = "all-MiniLM-L6-v2";
const client = new OpenAI();
const said = [{ role: "user", content: question }];
const past = [
  { role: "developer", content: "Be brief." },
  { role: "user", content: "Hello" },
  { role: "assistant", content: "Hello." },
];
const form = { type: "json_schema", json_schema: { name: "leave", schema: { type: "object" } } };

const ask = (fields) => client.chat.completions.create({ model: collection, messages: said, ...fields });

const describe = (text, usage, annotations) => ({
  text,
  tokens: usage.total_tokens,
  cited: annotations.map(({ url_citation }) => [url_citation.title, url_citation.end_index]),
});

async function streamed() {
  const heard = { text: "", pieces: 0 };
  for await (const part of await ask({ stream: true, stream_options: { include_usage: true }, cache: "bypass" })) {
    const delta = part.choices[0]?.delta ?? {};
    heard.pieces += Boolean(delta.content);
    heard.text += delta.content ?? "";
    heard.annotations ??= delta.annotations;
    heard.usage = part.usage;
  }
  return { ...describe(heard.text, heard.usage, heard.annotations), pieces: heard.pieces };
}

async function failure(call) {
  try {
    await call();
  } catch (error) {
    return { kind: error.constructor.name, code: error.code, param: error.param };
  }
}

const whole = await ask({});
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const vectors = await client.embeddings.create({ model: encoder, input: ["leave", "travel"] });
const heard = {
  whole: describe(whole.choices[0].message.content, whole.usage, whole.choices[0].message.annotations),
  streamed: await streamed(),
  conversation: (await ask({ messages: [...past, ...said] })).choices[0].message.content,
  vectors: vectors.data.map((row) => row.embedding),
  models,
  model: (await client.models.retrieve(`${collection}/extractive`)).id,
  errors: {
    collection: await failure(() => ask({ model: "nowhere" })),
    model: await failure(() => ask({ model: `${collection}/gpt-9` })),
    token: await failure(() => new OpenAI({ apiKey: "x" }).models.list()),
    value: await failure(() => ask({ temperature: 9 })),
    form: await failure(() => ask({ response_format: form })),
    "token ids": await failure(() => client.embeddings.create({ model: encoder, input: [1, 2] })),
  },
};
console.log(JSON.stringify(heard));
