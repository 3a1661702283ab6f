// The page: loads the model beside it, and classifies the photo that is chosen or dropped.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { pixelsOf, softmax, tensorData } from "./photo.js";

const TOP = 5;
// One thread: more of them need SharedArrayBuffer, and that a server which sends COOP and COEP.
ort.env.wasm.numThreads = 1;

const at = (id) => document.getElementById(id);
const loaded = load();
let queue = Promise.resolve(); // one photo after the other, in the order they came in

async function load() {
  const [about, content] = await Promise.all([fetched("model.json"), fetched("classifier.onnx")]);
  const { card, labels } = await about.json();
  const session = await ort.InferenceSession.create(await content.arrayBuffer(), {
    executionProviders: ["wasm"],
  });
  at("about").textContent = [card.name, `${card.output.count} classes`].filter(Boolean).join(" · ");
  at("file").disabled = false;
  return { session, card, labels };
}

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
  return answer;
}

async function classify(file) {
  at("results").hidden = at("error").hidden = at("preview").hidden = true;
  // Upright, and with the numbers of the file: no colour profile, as in training.
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(file, options).catch(() => {
    throw new Error(`${file.name}: is no image that this browser can read`);
  });
  show(file);
  const { session, card, labels } = await loaded; // a photo may be dropped before
  const started = performance.now();
  const contract = card.input;
  const { type, data, dims } = tensorData(pixelsOf(bitmap), contract);
  bitmap.close();
  const prepared = performance.now();
  const outputs = await session.run({ [contract.name]: new ort.Tensor(type, data, dims) });
  const done = performance.now();
  list(softmax(outputs[card.output.name].data), labels);
  at("latency").textContent =
    `${ms(done - prepared)} in the model, ${ms(prepared - started)} to prepare the photo`;
  at("results").hidden = false;
}

function show(file) {
  const preview = at("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = file.name;
  preview.hidden = false;
  at("hint").textContent = "Choose or drop another photo.";
}

function list(probabilities, labels) {
  const order = [...probabilities.keys()].sort((i, j) => probabilities[j] - probabilities[i]);
  at("classes").replaceChildren(
    ...order.slice(0, TOP).map((i) => {
      const item = document.createElement("li");
      const [name, percent, bar] = ["span", "b", "i"].map((tag) => document.createElement(tag));
      name.textContent = labels?.[i] ?? `class ${i}`;
      percent.textContent = `${(100 * probabilities[i]).toFixed(1)} %`;
      bar.style.setProperty("--p", probabilities[i]);
      item.append(name, percent, bar);
      item.dataset.probability = probabilities[i];
      return item;
    }),
  );
}

const ms = (time) => `${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;

function fail(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
}

function chosen(files) {
  const [file] = files; // now: the list may be emptied before its turn
  if (file) queue = queue.then(() => classify(file)).catch(fail);
}

at("file").addEventListener("change", ({ target }) => {
  chosen(target.files);
  target.value = ""; // else the same file, chosen again, would be no change
});
for (const name of ["dragover", "dragleave", "drop"]) {
  // On the whole page: beside the field the browser would open the picture in place of the page.
  addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") chosen(event.dataTransfer.files);
  });
}

loaded.catch((error) => {
  at("about").textContent = "The model could not be loaded.";
  fail(error);
});
