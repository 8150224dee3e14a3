// Images in a grid, page by page, and one image in full.

import { ask, complain, failed, h, icon, main, note, panel, reveal, say, skeleton, state } from "./dom.js";

export const viewer = document.getElementById("viewer");

function tile(photo, list) {
  const label = [photo.name, photo.time && `Video, ${photo.time}`, photo.fit].filter(Boolean).join(". ");
  const badge = photo.badge ?? (photo.fits === false && photo.marked ? "pek uymuyor" : null);
  return h(
    "li",
    {},
    h(
      "button",
      { class: "tile", type: "button", "data-id": photo.id, "aria-label": label, onclick: () => openViewer(list, list.indexOf(photo)) },
      h("img", { src: `thumbnail/${photo.id}`, alt: "", loading: "lazy", decoding: "async" }),
      badge ? h("span", { class: "badge", "aria-hidden": "true" }, badge) : null,
      timeMark(photo),
    ),
  );
}

/** The mark of a video or sound with the time of what is shown. */
export function timeMark(photo) {
  return photo.time ? h("span", { class: "badge time", "aria-hidden": "true" }, icon("play"), photo.time) : null;
}

/** Pages of images below `place`; `ask` gives a page from an offset on, `head` what stands above the first. */
export async function pages(place, current, load, { head = () => [], empty, byMonth = false, counted = "fotoğraf", words = "", form = false }) {
  const list = [];
  const body = h("div", {});
  const more = h("div", { class: "more-row" });
  place.replaceChildren(skeleton());
  if (form) reveal(place);
  say("Fotoğraflar geliyor…");
  let gone = 0;
  const add = (photos) => {
    for (const photo of photos) {
      list.push(photo);
      const month = byMonth ? photo.month : "";
      let grid = body.lastElementChild?.querySelector("ul");
      if (!grid || (body.lastElementChild.dataset.month ?? "") !== month) {
        grid = h("ul", { class: "grid" });
        body.append(h("section", { "data-month": month }, byMonth ? h("h2", {}, month) : null, grid));
      }
      grid.append(tile(photo, list));
    }
  };
  const again = () => pages(place, current, load, { head, empty, byMonth, counted, words, form });
  const step = async (offset) => {
    const page = await load(offset);
    if (!current()) return;
    gone += page.gone;
    if (!offset) place.replaceChildren(...head(page), body, more);
    const first = list.length;
    for (const photo of page.photos) Object.assign(photo, { words, marked: page.fits !== false });  // where none fits, that is said once
    add(page.photos);
    more.replaceChildren();
    if (page.more) {
      const button = h(
        "button",
        {
          class: "button",
          type: "button",
          onclick: async () => {
            button.disabled = true;
            button.textContent = "Geliyor…";
            try {
              await step(page.next);
              if (current()) body.querySelectorAll(".tile")[first + page.photos.length]?.focus({ preventScroll: true });
            } catch (error) {
              if (current()) more.replaceChildren(failed(error, again));
            }
          },
        },
        "Daha fazla göster",
      );
      more.append(button);
    }
    if (!list.length && !page.more) place.append(gone ? panel(state.imported ? AWAY : GONE) : empty);
    else if (gone) more.append(h("p", { class: "lead" }, ` ${gone} dosya artık yerinde değil.`));
    say(list.length ? `${list.length} ${counted} gösteriliyor.` : "Bir şey bulunamadı.");
  };
  try {
    await step(0);
  } catch (error) {
    if (!current()) return;
    if (form) complain(place, error, again);
    else place.replaceChildren(failed(error, again));
  }
}

const GONE = {
  title: "Dosyalar yerinde değil",
  text: "Bulunan fotoğrafların dosyaları taşınmış ya da silinmiş. Klasörü yeniden dizine alın.",
  symbol: "folder",
};

const AWAY = {
  title: "Dosyalar yerinde değil",
  text: "Bu dizin başka bir programın vektörlerinden yapılmış, ama dosyaların adları bu makinedeki yerlerini göstermiyor. Dizini aynı komutla, --prefix ESKİ=YENİ ekleyerek yeniden yapın.",
  symbol: "folder",
};

// One image

let open = { list: [], place: 0, address: "" };

export function openViewer(list, place) {
  open = { list, place, address: location.hash };
  drawViewer();
  if (!viewer.open) viewer.showModal();
  viewer.querySelector(".close").focus();
}

function turnTo(step) {
  const place = open.place + step;
  if (place < 0 || place >= open.list.length) return;
  open.place = place;
  const back = document.activeElement?.dataset.step;
  drawViewer();
  viewer.querySelector(`[data-step="${back}"]:not([hidden])`)?.focus() ?? viewer.querySelector(".close").focus();
}

function drawViewer() {
  const photo = open.list[open.place];
  const image = h("img", { src: `view/${photo.id}`, alt: photo.name });
  const where = photo.words
    ? h("button", { class: "button", type: "button", onclick: () => showWhere(photo, image, where) }, icon("place"), "Nerede?")
    : null;
  const facts = h("dl", {}, row("Klasör", photo.folder), (photo.rows ?? []).map(([name, value]) => row(name, value)));
  const stage = h(
    "div",
    { class: "stage" },
    image,
    h("button", { class: "icon close", type: "button", "aria-label": "Kapat", onclick: () => viewer.close() }, icon("close")),
    h("button", { class: "icon previous", type: "button", "data-step": -1, hidden: open.place === 0, "aria-label": "Önceki", onclick: () => turnTo(-1) }, icon("left")),
    h("button", { class: "icon next", type: "button", "data-step": 1, hidden: open.place === open.list.length - 1, "aria-label": "Sonraki", onclick: () => turnTo(1) }, icon("right")),
  );
  image.addEventListener("error", () => image.replaceWith(h("p", {}, "Bu resim açılamadı: dosya taşınmış ya da bozulmuş olabilir.")));
  const details = ask("details", { name: photo.id }).catch(() => null);
  const loaded = new Promise((done) => image.addEventListener("load", done));
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 200 && image.naturalHeight < 200));
  details.then((found) => {
    if (!found || open.list[open.place] !== photo) return;
    const size = row("Çözünürlük", "");
    size.hidden = true;
    facts.append(size, ...found.rows.map(([name, value]) => row(name, value)), row("Yol", photo.path));
    loaded.then(() => {
      size.hidden = found.copy;
      size.lastChild.textContent = `${image.naturalWidth} × ${image.naturalHeight}`;
    });
  });
  const score = photo.score ? ` (benzerlik ${photo.score})` : "";
  const side = h(
    "div",
    { class: "facts", tabindex: 0, role: "region", "aria-label": "Fotoğrafın bilgileri" },
    h("h2", { id: "viewer-name" }, photo.name),
    h("p", { class: "fit" }, photo.fit ? `${photo.fit}${score}` : ""),
    h(
      "div",
      { class: "row" },
      h("a", { class: "button primary", href: `#ara?resim=${photo.id}` }, icon("similar"), "Benzerleri"),
      play(photo, image),
      h("a", { class: "button", href: `original/${photo.id}`, download: photo.name }, icon("download"), photo.time ? "Videoyu indir" : "İndir"),
      where,
    ),
    h("div", { id: "where", role: "status" }),
    facts,
  );
  viewer.replaceChildren(h("div", { class: "viewer" }, stage, side));
}

/** A button that plays a video or sound in place of its frame, from the frame's second on, where the browser may play it. */
function play(photo, image) {
  if (!photo.plays || !document.createElement("video").canPlayType(photo.plays)) return null;
  const button = h("button", { class: "button", type: "button", id: "play" }, icon("play"), "Oynat");
  button.addEventListener("click", () => {
    const film = h("video", { src: `video/${photo.id}#t=${photo.second}`, controls: true, playsinline: true, autoplay: true, "aria-label": photo.name });
    button.disabled = true;
    film.addEventListener("error", () => {
      film.replaceWith(image);
      document.getElementById("where")?.replaceChildren(note("Tarayıcınız bunu oynatamıyor; indirip açabilirsiniz.", "warning"));
    });
    image.parentElement.querySelector(".frame")?.remove();
    image.replaceWith(film);
    film.focus();
  });
  return button;
}

/** Frames where in an image the words of the search are. */
async function showWhere(photo, image, button) {
  const said = document.getElementById("where");
  button.disabled = true;
  said.replaceChildren(h("p", { class: "fit" }, "Bakılıyor…"));
  try {
    const { box, shows } = await ask("where", { name: photo.id, words: photo.words });
    if (open.list[open.place] !== photo) return;
    const frame = h("div", { class: "frame", role: "img", "aria-label": `“${photo.words}” burada` });
    const place = () => {
      const stage = image.parentElement.getBoundingClientRect();
      const scale = Math.min(stage.width / image.naturalWidth, stage.height / image.naturalHeight);
      const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
      frame.style.left = `${(stage.width - width) / 2 + box[0] * width}px`;
      frame.style.top = `${(stage.height - height) / 2 + box[1] * height}px`;
      frame.style.width = `${box[2] * width}px`;
      frame.style.height = `${box[3] * height}px`;
    };
    await image.decode().catch(() => {});
    if (!image.parentElement) return; // the video is played
    image.after(frame);
    new ResizeObserver(place).observe(image.parentElement);
    said.replaceChildren(h("p", { class: "fit" }, shows === false ? "Bu resimde pek görünmüyor; en çok benzeyen yer çerçevelendi." : "En uygun yer çerçevelendi."));
  } catch (error) {
    said.replaceChildren(note(error.message, "error"));
    button.disabled = false;
  }
}

const row = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

export function startViewer() {
  let from = null;
  viewer.addEventListener("keydown", (event) => {
    if (event.target.closest("video")) return; // its own controls
    if (event.key === "ArrowLeft") turnTo(-1);
    if (event.key === "ArrowRight") turnTo(1);
  });
  viewer.addEventListener("touchstart", (event) => (from = event.touches.length === 1 && event.target.closest(".stage") ? event.touches[0].clientX : null), { passive: true });
  viewer.addEventListener("touchend", (event) => {
    const by = from === null ? 0 : event.changedTouches[0].clientX - from;
    if (Math.abs(by) > 50) turnTo(by > 0 ? -1 : 1);
  });
  viewer.addEventListener("close", () => {
    if (open.address === location.hash) main.querySelector(`[data-id="${open.list[open.place].id}"]`)?.focus();
  });
}
