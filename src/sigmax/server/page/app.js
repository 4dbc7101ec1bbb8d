"use strict";

const TOP_K = 8;
const PAUSE = 180; // milliseconds without a keystroke before the server is asked

const at = (id) => document.getElementById(id);
const number = (value) => (value === null ? "–" : value.toFixed(3));
const count = (value) => value.toLocaleString("en");

let models = [];
let rules = {};
let running = null; // what cancels the request that is on its way
let timer = null;

/** Make an element; what it holds is text or other elements, never markup. */
function make(name, className = "", ...inside) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...inside);
  return made;
}

async function call(path, asked, signal) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers, signal };
  if (asked) {
    options.method = "POST";
    options.body = JSON.stringify(asked);
    headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it running?");
  }
  const found = await answer.json().catch(() => ({ error: `The server answered with status ${answer.status}.` }));
  if (answer.status === 401) at("key-part").hidden = false;
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function say(error) {
  at("error").hidden = !error;
  at("error").textContent = error ? error.message : "";
}

// -- what is asked --------------------------------------------------------------------------------

function rule() {
  const name = at("rule").value;
  return rules[name].takes_level ? `${name}=${at("level").value}` : name;
}

function showRule() {
  const { takes_level, summary } = rules[at("rule").value];
  const level = Number(at("level").value).toFixed(2);
  at("level-part").hidden = !takes_level;
  at("level-shown").textContent = level;
  const said = summary.replace("{level}", level);
  at("rule-says").textContent = `${said[0].toUpperCase()}${said.slice(1)}.`;
}

async function picture() {
  const [file] = at("picture").files;
  if (!file) return null;
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768) {
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  }
  return { name: file.name, item: { picture: btoa(text) } };
}

/** The questions that there are, by whether they are pictures. */
async function asked() {
  const text = at("text").value.trim();
  const shown = await picture();
  return {
    false: text ? { name: `“${text}”`, item: text } : null,
    true: shown && { name: shown.name, item: shown.item },
  };
}

// -- what is answered -----------------------------------------------------------------------------

function bar(kind, value) {
  const fill = make("span", "fill");
  fill.style.width = `${100 * (value ?? 0)}%`;
  const track = make("span", "track", fill);
  track.setAttribute("aria-hidden", "true");
  return make("td", `bar ${kind}`, make("div", "", make("span", "number", number(value)), track));
}

function row(match) {
  const mark = make("span", "mark", match.accepted ? "✓" : "");
  mark.setAttribute("aria-hidden", "true");
  const head = make("th", "marked", mark, match.candidate);
  if (match.accepted) head.append(make("span", "hidden-word", " (accepted)"));
  head.scope = "row";
  return make("tr", match.accepted ? "accepted" : "", head, bar("share", match.share), bar("presence", match.presence));
}

function verdict(result) {
  const [said, kind] = outcome(result);
  return [result.unlike_training ? `${said.replace(/\.$/, "")}. Unlike anything in training.` : said, kind];
}

function outcome(result) {
  if (result.accepted_count === null) return ["The model was not calibrated, so nothing is accepted or refused.", ""];
  if (result.accepted_count === 0) return [result.outcome === "none of these" ? "None of these." : "Nothing accepted.", "none"];
  const shown = result.matches.filter((match) => match.accepted).length;
  const more = result.accepted_count - shown;
  return [`${count(result.accepted_count)} accepted${more ? `, ${count(more)} of them not shown` : ""}`, "some"];
}

function section(model, question, { rule: decided, results: [result] }) {
  const made = at("result").content.cloneNode(true).firstElementChild;
  const find = (selector) => made.querySelector(selector);
  find("h2").textContent = model.name;
  const [said, kind] = verdict(result);
  find(".verdict").textContent = said;
  if (kind) find(".verdict").classList.add(kind);
  find(".any").hidden = result.any === null;
  find(".any .fill").style.width = `${100 * (result.any ?? 0)}%`;
  find(".any .number").textContent = number(result.any);
  find("caption").textContent = `${question.name}: the best ${result.matches.length} of ${count(model.candidates)} candidates`;
  find("tbody").append(...result.matches.map(row));
  find(".promise").textContent = decided ? (decided.promise ? `${decided.promise}.` : decided.reason ?? "") : "";
  const details = find("details");
  details.addEventListener("toggle", () => details.open && explain(model, question, details), { once: true });
  return made;
}

function summary(model, result) {
  const [said] = verdict(result);
  return `${model.name}: ${said.replace(/\.$/, "")}; best ${result.matches[0].candidate}.`;
}

async function explain(model, question, details) {
  try {
    const { items: [item], words } = await call("explain", { query: question.item, model: model.name, top_k: TOP_K });
    const rows = item.activations.map((one) => {
      const head = make("th", "", one.candidate);
      head.scope = "row";
      const exp = one.exp === null ? "∞" : one.exp >= 1e5 || one.exp < 0.01 ? one.exp.toExponential(1) : one.exp.toFixed(2);
      const cells = [one.logit.toFixed(2), exp, ...[one.share, one.binary, one.presence].map(number)];
      return make("tr", "", head, ...cells.map((cell) => make("td", "", cell)), make("td", one.verdict, one.verdict));
    });
    details.querySelector("caption").textContent = `${question.name}, ${model.name}`;
    details.querySelector("tbody").replaceChildren(...rows);
    details.querySelector(".words").replaceChildren(...words.map((said) => make("li", "", said)));
  } catch (error) {
    say(error);
  }
}

async function match() {
  clearTimeout(timer);
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    if (!models.length) await start();
    const questions = await asked();
    const able = models.filter((model) => questions[model.pictures]);
    if (!able.length) {
      at("results").replaceChildren();
      at("status").textContent = "";
      say(null);
      return;
    }
    at("results").classList.add("waiting");
    const answers = await Promise.all(
      able.map((model) => {
        const query = questions[model.pictures].item;
        return call("match", { query, model: model.name, top_k: TOP_K, rule: model.calibrated ? rule() : "best-f1" }, signal);
      }),
    );
    const open = [...at("results").querySelectorAll("section")].map((one) => one.querySelector("details").open);
    at("results").replaceChildren(
      ...answers.map((answer, i) => section(able[i], questions[able[i].pictures], answer)),
    );
    [...at("results").querySelectorAll("details")].forEach((one, i) => { one.open = open[i] ?? false; });
    at("status").textContent = answers.map((answer, i) => summary(able[i], answer.results[0])).join(" ");
    at("key-part").hidden = true;
    say(null);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("results").replaceChildren();
    at("status").textContent = "";
    say(error);
  }
  at("results").classList.remove("waiting");
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(match, PAUSE);
}

// -- start ----------------------------------------------------------------------------------------

async function start() {
  const found = await call("models");
  models = found.models;
  rules = Object.fromEntries(found.rules.map((one) => [one.name, one]));
  at("about").textContent = models
    .map((model) => `${model.name}: ${count(model.candidates)} candidates`)
    .join(" · ");
  at("rule").replaceChildren(
    ...found.rules.map((one) => {
      const option = make("option", "", one.takes_level ? `${one.name} =` : one.name);
      option.value = one.name;
      return option;
    }),
  );
  at("text-part").hidden = models.every((model) => model.pictures);
  at("picture-part").hidden = !models.some((model) => model.pictures);
  at("key-part").hidden = true;
  showRule();
  say(null);
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (at("key").value) sessionStorage.setItem("key", at("key").value);
  match();
});
at("text").addEventListener("input", soon);
for (const id of ["rule", "level"]) {
  at(id).addEventListener("input", () => {
    showRule();
    soon();
  });
}

at("picture").addEventListener("change", () => {
  const [file] = at("picture").files;
  URL.revokeObjectURL(at("preview").src);
  at("preview").hidden = !file;
  if (file) at("preview").src = URL.createObjectURL(file);
  match();
});
at("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
at("drop").addEventListener("dragleave", () => at("drop").classList.remove("over"));
at("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  at("picture").files = event.dataTransfer.files;
  at("picture").dispatchEvent(new Event("change"));
});

start().then(() => at("text").value && match(), say);
