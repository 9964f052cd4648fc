"""The page that shows the OpenAPI document to a person: three small texts, no data.

The page asks for the document with the session of this tab, else for a token; nothing
is loaded from elsewhere.
"""

HTML = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <meta name="referrer" content="no-referrer">
    <title>Simyard: REST reference</title>
    <link rel="icon" href="/icons/simyard.svg" type="image/svg+xml">
    <link rel="stylesheet" href="/docs.css">
    <script type="module" src="/docs.js"></script>
  </head>
  <body>
    <header><h1>Simyard: REST reference</h1><a href="/">Dashboard</a></header>
    <main id="view">
      <noscript>This page needs JavaScript; the document itself is /api/openapi.json.</noscript>
    </main>
  </body>
</html>
"""

STYLE = """:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; }
header { align-items: baseline; display: flex; gap: 1rem; justify-content: space-between; }
h1 { font-size: 1.4rem; }
h2 { border-bottom: 1px solid #8886; font-size: 1.1rem; margin-top: 2rem; text-transform: capitalize; }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; }
summary { cursor: pointer; padding: .4rem .7rem; }
summary code { font-weight: 600; margin-right: .8rem; overflow-wrap: anywhere; }
.verb { display: inline-block; font-weight: 700; min-width: 4.2rem; }
.inner { overflow-x: auto; padding: 0 .9rem .7rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8883; padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top; }
pre { background: #8881; border-radius: 6px; overflow-x: auto; padding: .6rem; }
form { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: 1rem; }
input { flex: 1 1 20rem; font: inherit; padding: .4rem; }
button { font: inherit; padding: .4rem .9rem; }
"""

SCRIPT = """const view = document.getElementById("view");
const KEY = "simyard.session";

function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return schema.items ? `list of ${typeOf(schema.items)}` : "list";
  return schema.type ?? "anything";
}

function table(heads, rows) {
  if (rows.length === 0) return null;
  return h("table", {},
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", {}, head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))));
}

function operation(method, path, facts) {
  const parameters = (facts.parameters ?? []).map((one) => [
    h("code", {}, one.name), one.in, typeOf(one.schema), one.description ?? one.schema?.description ?? ""]);
  const body = Object.values(facts.requestBody?.content ?? {})[0]?.schema;
  const answers = Object.entries(facts.responses).map(([status, answer]) => {
    const schema = Object.values(answer.content ?? {})[0]?.schema;
    return [status, typeOf(schema), answer.description];
  });
  return h("details", {},
    h("summary", {}, h("span", { class: "verb" }, method.toUpperCase()), h("code", {}, path), facts.summary),
    h("div", { class: "inner" },
      h("p", {}, `Scope: ${facts["x-scope"]}.`),
      table(["Parameter", "In", "Type", "Meaning"], parameters),
      body ? h("p", {}, "Body: ", h("code", {}, typeOf(body))) : null,
      table(["Status", "Answer", "Meaning"], answers)));
}

function schemaOf(name, schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, facts]) => [
    h("code", {}, field), typeOf(facts), required.has(field) ? "required" : "",
    facts.description ?? ""]);
  return h("details", {},
    h("summary", {}, h("code", {}, name)),
    h("div", { class: "inner" },
      h("p", {}, schema.description ?? ""),
      table(["Field", "Type", "", "Meaning"], rows) ?? h("pre", {}, JSON.stringify(schema, null, 2))));
}

function draw(document_) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(document_.paths)) {
    for (const [method, facts] of Object.entries(methods)) {
      const tag = facts.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(method, path, facts));
    }
  }
  view.replaceChildren(
    h("p", {}, document_.info.description),
    ...[...groups].flatMap(([tag, items]) => [h("h2", {}, tag), ...items]),
    h("h2", {}, "Shapes"),
    ...Object.entries(document_.components.schemas).map(([name, schema]) => schemaOf(name, schema)));
}

function ask(message) {
  const input = h("input", { type: "password", autocomplete: "off", "aria-label": "Token", placeholder: "Token" });
  const form = h("form", {}, input, h("button", {}, "Show the reference"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load(input.value.trim());
  });
  view.replaceChildren(
    h("p", {}, message),
    h("p", {}, "Open the dashboard with “simyard dashboard” and come here in the same tab, or paste the token of the service."),
    form);
}

async function load(token) {
  if (!token) return ask("The reference is shown to whoever may use the service.");
  try {
    const response = await fetch("/api/openapi.json", {
      headers: { Authorization: `Bearer ${token}` }, credentials: "omit", cache: "no-store" });
    if (response.status === 401) return ask("That token is not valid, or not any longer.");
    if (!response.ok) return ask(`The service answered with status ${response.status}.`);
    draw(await response.json());
  } catch {
    ask("The service does not answer.");
  }
}

load(sessionStorage.getItem(KEY));
"""
