// Makes elements, asks the page's own server, picks images, follows jobs.

export const main = document.getElementById("main");
/** What the server says that there is. */
export const state = {};
const SVG = "http://www.w3.org/2000/svg";
export const IMAGES = "image/*,.heic,.heif"; // what is offered to be chosen
export const UNREACHED = "Sayfaya yanıt gelmiyor. turkish-clip app komutu çalışıyor mu?";

/** An element: h("p", {class: "note", onclick: f}, "text", child). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

/** The heading of a section, which the window is named after, too. */
export function title(text, heading = text) {
  document.title = text;
  return h("h1", { title: heading.length > 100 ? heading : null }, heading); // a long one is cut
}

/** What the server refused, with a message for the reader; `passing` where asking again may help. */
export class Refused extends Error {
  constructor(message, passing) {
    super(message);
    this.passing = passing;
  }
}

export async function ask(name, given = {}) {
  return answered(() => fetch(`ask/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(given),
  }));
}

export async function upload(file) {
  const answer = await answered(() => fetch("upload", {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
  }));
  return { id: answer.id, name: file.name, url: URL.createObjectURL(file) };
}

async function answered(fetching) {
  let answer;
  let value;
  try {
    answer = await fetching();
    value = await answer.json();
  } catch {
    throw new Refused(UNREACHED, true);
  }
  if (!answer.ok) throw new Refused(value.message ?? UNREACHED, answer.status >= 500);
  return value;
}

/** Tells people who listen. */
export function say(text) {
  document.getElementById("live").textContent = text;
}

export function note(text, kind = "info") {
  return h("p", { class: `note ${kind}` }, icon(kind === "info" ? "info" : "warn"), h("span", {}, text));
}

/** What is to be said of the model, in every section that uses it. */
export function modelNotes() {
  return (state.notes ?? []).map((text) => note(text, "warning"));
}

/** Brings into view what came below or above it, clear of the bars. */
export function reveal(element) {
  element?.scrollIntoView({ block: "nearest" });
}

/** An upload as an image: the file itself, or the server's copy where the browser does not show files of its kind. */
export function picture({ id, url, name }) {
  const image = h("img", { src: url ?? `preview/${id}`, alt: name });
  if (url) image.addEventListener("error", () => (image.src = `preview/${id}`), { once: true });
  return image;
}

/** A table that scrolls in its own box, with a hint while it is wider than that. */
export function scrollable(table, label) {
  const box = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
  const hint = h("p", { class: "hint", hidden: true }, "Tabloyu yana kaydırın", icon("right"));
  const look = () => (hint.hidden = box.scrollWidth <= box.clientWidth + 1);
  const sizes = new ResizeObserver(look);
  sizes.observe(box);
  sizes.observe(table);
  return h("div", {}, hint, box);
}

/** A state in place of content: empty, or an error with a way on. */
export function panel({ title, text, kind = "empty", action, onaction, symbol = "photos" }) {
  return h(
    "div",
    { class: `panel ${kind}`, role: kind === "error" ? "alert" : null },
    icon(kind === "error" ? "warn" : symbol),
    h("h2", {}, title),
    text ? h("p", {}, text) : null,
    action ? h("button", { class: "button", type: "button", onclick: onaction }, action) : null,
  );
}

/** Says beside a form what went wrong, in view and to people who listen; with a button where trying again may help. */
export function complain(place, error, again) {
  const text = error instanceof Refused ? error.message : "Beklenmeyen bir aksaklık oldu.";
  if (!(error instanceof Refused)) console.error(error);
  const said = note(text, "error");
  const helps = again && error.passing !== false;
  const button = helps ? h("button", { class: "button", type: "button", onclick: again }, "Yeniden dene") : null;
  const box = h("div", { class: "complaint", role: "alert" }, said, button);
  place.replaceChildren(box);
  reveal(box);
}

export function failed(error, again) {
  const text = error instanceof Refused ? error.message : "Beklenmeyen bir aksaklık oldu.";
  if (!(error instanceof Refused)) console.error(error);
  const helps = again && error.passing !== false;
  return panel({ title: "Olmadı", text, kind: "error", action: helps && "Yeniden dene", onaction: again });
}

export function skeleton(count = 8) {
  return h(
    "ul",
    { class: "grid loading", "aria-hidden": "true" },
    Array.from({ length: count }, () => h("li", {}, h("span", { class: "tile" }))),
  );
}

export function progress(job, words) {
  const known = job.total > 0;
  const bar = h("progress", { "aria-label": words, max: known ? job.total : null, value: known ? job.done : null });
  const counts = known ? `${job.done.toLocaleString("tr")} / ${job.total.toLocaleString("tr")}` : "Dosyalara bakılıyor…";
  return h("div", { class: "progress" }, h("p", {}, h("strong", {}, words), " ", h("span", {}, counts)), bar);
}

/** Calls `show` with a job until it has ended, while `shown()` holds. */
export async function follow(kind, show, shown) {
  for (;;) {
    const job = await ask("job", { kind });
    if (!shown()) return null;
    show(job);
    if (job.state !== "running") return job;
    await new Promise((done) => setTimeout(done, 400));
  }
}

/** A place to choose images, or to drop them; `value` holds what was uploaded. */
export function picker({ label, multiple = false, most = 1 }) {
  const value = [];
  const input = h("input", { type: "file", accept: IMAGES, multiple, hidden: true });
  const shown = h("ul", { class: "picked", "aria-label": "Seçilen resimler" });
  const message = h("div", { role: "status" });
  const button = h(
    "button",
    { type: "button", class: "drop", onclick: () => input.click() },
    icon("image"),
    h("strong", {}, label),
    h("span", {}, multiple ? "Seçin ya da buraya sürükleyin" : "Seçin ya da buraya sürükleyin, en çok 20 MB"),
  );
  const draw = () => {
    shown.replaceChildren(
      ...value.map((one) =>
        h(
          "li",
          {},
          picture(one),
          h(
            "button",
            {
              type: "button",
              class: "icon",
              "aria-label": `${one.name}: çıkar`,
              onclick: () => {
                value.splice(value.indexOf(one), 1);
                URL.revokeObjectURL(one.url);
                draw();
                button.focus();
              },
            },
            icon("close"),
          ),
        ),
      ),
    );
    shown.hidden = !value.length;
  };
  const take = async (files) => {
    message.replaceChildren();
    button.setAttribute("aria-busy", "true");
    for (const file of [...files].slice(0, multiple ? most - value.length : 1)) {
      try {
        const one = await upload(file);
        if (!multiple) value.splice(0).forEach((old) => URL.revokeObjectURL(old.url));
        value.push(one);
      } catch (error) {
        message.replaceChildren(note(`${file.name}: ${error.message}`, "warning"));
      }
    }
    button.removeAttribute("aria-busy");
    input.value = "";
    draw();
  };
  input.addEventListener("change", () => take(input.files));
  dropping(button, take);
  draw();
  return { element: h("div", { class: "picker" }, button, input, shown, message), value };
}

/** Takes image files that are dropped on an element. */
export function dropping(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  });
}
