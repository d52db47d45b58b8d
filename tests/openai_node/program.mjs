// A program that uses OpenAI's own library for Node, unmodified. Its one argument is JSON: where to ask, and by which key.
// It prints what it was told as JSON. Names of tenants are in no name service here, so they are looked up as one would in
// /etc/hosts.
import dns from "node:dns";
import OpenAI from "openai";

const { url, host, key, badKey } = JSON.parse(process.argv[2]);
const lookup = dns.lookup;
dns.lookup = (name, options, done) => lookup(name === host ? "127.0.0.1" : name, options, done);

const client = (apiKey, options = {}) => new OpenAI({ apiKey, baseURL: url, maxRetries: 0, timeout: 30000, ...options });
const messages = [{ role: "user", content: "x" }];
const program = client(key);

async function refusal(ask) {
  try {
    await ask();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, type: error.type, code: error.code, reason: error.error?.reason };
  }
}

async function streamed(model, more = {}) {
  const told = { text: "", arguments: "", finish: null, usage: null, ids: [], models: [] };
  for await (const chunk of await program.chat.completions.create({ model, messages, stream: true, ...more })) {
    const choice = chunk.choices[0];
    told.text += choice?.delta?.content ?? "";
    for (const call of choice?.delta?.tool_calls ?? []) told.arguments += call.function?.arguments ?? "";
    told.finish = choice?.finish_reason ?? told.finish;
    told.usage = chunk.usage ?? told.usage;
    if (!told.ids.includes(chunk.id)) told.ids.push(chunk.id);
    if (!told.models.includes(chunk.model)) told.models.push(chunk.model);
  }
  return told;
}

const models = [];
for await (const model of program.models.list()) models.push(model.id);
const image = { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } };
const { data: whole, response } = await program.chat.completions.create({ model: "zh", messages }).withResponse();
const tools = [{ type: "function", function: { name: "get_weather", parameters: { type: "object" } } }];

console.log(
  JSON.stringify({
    models,
    whole,
    left: response.headers.get("x-ratelimit-remaining-requests"),
    stream: await streamed("emoji", { stream_options: { include_usage: true } }),
    tools: await streamed("tools", { tools }),
    joined: (await program.chat.completions.create({ model: "tools", messages, tools })).choices[0],
    image: (
      await program.chat.completions.create({
        model: "plain",
        messages: [{ role: "user", content: [{ type: "text", text: host }, image] }],
      })
    ).choices[0].message.content,
    patient: (await client(key, { timeout: 1000, maxRetries: 4 }).chat.completions.create({ model: "slow-2200", messages }))
      .choices[0].message.content,
    refusals: {
      key: await refusal(() => client(badKey).chat.completions.create({ model: "zh", messages })),
      model: await refusal(() => program.chat.completions.create({ model: "none", messages })),
      request: await refusal(() => program.chat.completions.create({ model: "zh", messages, n: 3 })),
      upstream: await refusal(() => program.chat.completions.create({ model: "http-500", messages, stream: true })),
      broken: await refusal(() => streamed("reset-3")),
    },
  }),
);
