// The sections beside the photographs: filter, duplicates, folders, classify, compare, about.

import { ask, complain, failed, follow, h, icon, main, modelNotes, note, panel, picker, picture, progress, reveal, say, scrollable, state, title } from "./dom.js";
import { openViewer, pages, timeMark } from "./grid.js";

// Filter

function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", {}, label), control, hint ? h("small", {}, hint) : null);
}

export function showFilter(current) {
  const prompts = h("textarea", { rows: 3, maxlength: 4000, placeholder: "ör. bulanık bir fotoğraf" });
  const contrast = h("textarea", { rows: 3, maxlength: 4000, placeholder: state.contrast });
  const shown = h("output", {}, "%50");
  const least = h("input", { type: "range", min: 1, max: 99, value: 50, "aria-label": "En az olasılık, yüzde", oninput: () => (shown.textContent = `%${least.value}`) });
  const place = h("div", {});
  const form = h(
    "form",
    { class: "form two", "aria-label": "Filtre" },
    field("Neler işaretlensin?", prompts, "Her satıra bir söz"),
    field("Neyle karıştırılmasın?", contrast, "Boş bırakılırsa: her türlü başka fotoğraf"),
    h("label", { class: "field" }, h("span", {}, "En az olasılık: ", shown), least),
    h("div", { class: "row end" }, h("button", { class: "button primary", id: "run-filter" }, icon("filter"), "İşaretle")),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = { prompts: prompts.value, contrast: contrast.value, least: Number(least.value) / 100 };
    const head = (page) => [
      ...page.notes.map((text) => note(text, "warning")),
      h("h2", {}, page.flagged ? `${page.flagged.toLocaleString("tr")} fotoğraf işaretlendi` : ""),
    ];
    const empty = panel({ title: "Hiçbiri işaretlenmedi", text: "Olasılığı düşürün ya da başka sözlerle deneyin.", symbol: "filter" });
    await pages(place, current, (offset) => ask("filter", { ...given, offset }), { head, empty, form: true });
  });
  main.replaceChildren(
    title("Filtre"),
    h("p", { class: "lead" }, "Bütün fotoğraflara bakar ve sözlerinize uyanları işaretler. Hiçbir dosya taşınmaz, silinmez; yanılabilir, sonuçları gözden geçirin."),
    ...modelNotes(),
    form,
    place,
  );
}

// Duplicates

export async function showDuplicates(current) {
  const exact = h("input", { type: "checkbox" });
  const place = h("div", {});
  const start = h("button", { class: "button primary", id: "find-duplicates" }, icon("copies"), "Tekrarları ara");
  const form = h("form", { class: "form" }, h("label", { class: "check" }, exact, "Yalnız birebir aynı dosyalar"), h("div", { class: "row" }, start));
  main.replaceChildren(
    title("Tekrarlar"),
    h("p", { class: "lead" }, "Birebir aynı dosyaları ve birbirine çok benzeyen fotoğrafları bulur: küçültülmüş, kırpılmış ya da yeniden kaydedilmiş kopyalar. Hiçbir şey silinmez."),
    note("Benzer olanlar ayrı resimler olabilir: art arda çekilmiş iki fotoğraf ya da benzer iki çizim de kopya sanılabilir. Silmeden önce ikisine de bakın.", "warning"),
    form,
    place,
  );
  const watch = async (asked = false) => {
    try {
      const job = await follow("duplicates", (one) => showJob(place, one, "Karşılaştırılıyor", start, asked), current);
      if (job?.state === "done") await showGroups(place, job.result, current);
    } catch (error) {
      if (current()) complain(place, error);
    }
    start.disabled = false;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("find-duplicates", { exact: exact.checked });
      await watch(true);
      if (current()) reveal(place);
    } catch (error) {
      if (current()) complain(place, error);
    }
  });
  await watch();
}

function showJob(place, job, words, button, asked) {
  button.disabled = job.state === "running";
  if (job.state === "running") {
    const stop = h("button", { class: "button", type: "button", disabled: job.stopping, onclick: () => ask("stop", { kind: job.kind }) }, job.stopping ? "Duruyor…" : "Durdur");
    const had = place.contains(document.activeElement);
    place.replaceChildren(progress(job, words), stop);
    if (had) stop.focus();
    if (asked && !job.done) reveal(place);
  } else if (job.state === "failed") place.replaceChildren(panel({ title: "Olmadı", text: job.message, kind: "error" }));
  else if (job.state === "stopped") place.replaceChildren(note(job.kind === "index" ? "Durduruldu. Yeniden başlatırsanız kaldığı yerden sürer." : "Durduruldu."));
  else place.replaceChildren();
}

async function showGroups(place, result, current) {
  if (!result.groups) {
    place.replaceChildren(panel({ title: "Tekrar yok", text: `${result.images.toLocaleString("tr")} fotoğraf arasında kopya ya da çok benzer olan bulunamadı.`, symbol: "check" }));
    say("Tekrar yok.");
    return;
  }
  const list = [];
  const body = h("div", {});
  const more = h("div", { class: "more-row" });
  const counts = `${result.groups.toLocaleString("tr")} grupta ${result.files.toLocaleString("tr")} dosya; fazlaları ${result.spare} yer tutuyor`;
  place.replaceChildren(h("h2", {}, counts), result.unread ? note(`${result.unread} dosya açılamadığı için karşılaştırılmadı.`, "warning") : "", body, more);
  say(counts);
  let number = 0;
  const step = async (offset) => {
    const page = await ask("duplicates", { offset });
    if (!current()) return;
    for (const group of page.groups) {
      body.append(
        h(
          "section",
          { class: "group" },
          h("h2", {}, `${++number}. grup`),
          h("ul", {}, group.map((file) => {
            list.push(file);
            const badge = file.keep ? h("span", { class: "badge good" }, "saklanacak") : file.near ? h("span", { class: "badge near" }, "benzer") : null;
            const image = file.id ? h("button", { class: "tile", type: "button", "data-id": file.id, "aria-label": `${file.name}. ${file.fit}`, onclick: () => openViewer(list, list.indexOf(file)) }, h("img", { src: `thumbnail/${file.id}`, alt: "", loading: "lazy" }), badge, timeMark(file)) : null;
            return h("li", {}, image, h("p", {}, file.name), h("p", {}, file.folder), h("p", {}, `${file.size}, ${file.when}`), file.same ? h("p", {}, file.same) : null);
          })),
        ),
      );
    }
    more.replaceChildren(page.more ? h("button", { class: "button", type: "button", onclick: () => step(page.next) }, "Daha fazla göster") : "");
  };
  await step(0);
}

// Folders

export async function showFolders(current) {
  const place = h("div", {});
  const work = h("div", {});
  let below = "";
  main.replaceChildren(title("Klasörler"), h("p", { class: "lead" }, `“${state.folder}” ve altındaki klasörler dizine alınabilir. Fotoğraflara dokunulmaz; yalnız yeni ve değişmiş olanlar okunur.`), work, place);
  const start = h("button", { class: "button primary", type: "button", id: "add-folder" }, icon("folder"));
  const watch = async (asked = false) => {
    try {
      const job = await follow("index", (one) => showJob(work, one, "Dizine alınıyor", start, asked), current);
      if (job?.state === "done") {
        work.replaceChildren(...indexed(job.result));
        say("Dizine alındı.");
      }
      if (job?.state) {
        Object.assign(state, await ask("state"));
        if (current()) await draw(below);
      }
    } catch (error) {
      if (current()) complain(work, error);
    }
    start.disabled = false;
  };
  start.addEventListener("click", async () => {
    try {
      await ask("add-folder", { below });
      await watch(true);
      if (current()) reveal(work);
    } catch (error) {
      if (current()) complain(work, error);
    }
  });
  const draw = async (folder) => {
    const found = await ask("folders", { below: folder });
    if (!current()) return;
    below = found.below;
    const parts = below ? below.split("/") : [];
    const crumbs = [state.folder, ...parts].map((name, place_) => [
      place_ ? icon("right") : null,
      h("button", { type: "button", "aria-current": place_ === parts.length ? "true" : null, onclick: () => draw(parts.slice(0, place_).join("/")) }, h("span", {}, name)),
    ]);
    const verb = parts.length ? (found.inside ? "dizinde; güncelle" : "klasörünü dizine al") : found.inside ? "Dizini güncelle" : "Klasörü dizine al";
    const name = parts.length ? [h("span", { class: "name", title: parts.at(-1) }, `“${parts.at(-1)}”`), " "] : [];
    start.replaceChildren(icon("folder"), ...name, h("span", { class: "verb" }, verb));
    place.replaceChildren(
      h("nav", { class: "crumbs", "aria-label": "Klasör yolu" }, crumbs),
      found.folders.length
        ? h("ul", { class: "folders" }, found.folders.map(({ name, inside }) => h("li", {}, h("button", { type: "button", onclick: () => draw([...parts, name].join("/")) }, icon("folder"), h("span", {}, name), inside ? h("small", {}, "dizinde") : null, icon("right")))))
        : h("p", { class: "lead" }, "Burada alt klasör yok."),
      h("div", { class: "row" }, start),
      h("h2", {}, `Dizinde: ${found.images.toLocaleString("tr")} fotoğraf`),
      found.indexed.length ? h("ul", { class: "folders" }, found.indexed.map((name) => h("li", {}, h("p", {}, icon("folder"), h("span", {}, name))))) : "",
      ...skipped(found.skipped, found.skipped_count),
    );
  };
  place.replaceChildren(h("p", { class: "lead" }, "Klasörlere bakılıyor…"));
  try {
    await draw("");
    await watch();
  } catch (error) {
    if (current()) place.replaceChildren(failed(error, () => showFolders(current)));
  }
}

function indexed(result) {
  const changes = [
    [result.added, "yeni"], [result.duplicates, "aynı içerikli kopya"], [result.moved, "taşınmış"], [result.vanished, "artık olmayan"], [result.excluded, "dışarıda bırakılan"],
  ].filter(([count]) => count).map(([count, what]) => `${count.toLocaleString("tr")} ${what}`);
  const text = changes.length ? `Bitti: ${changes.join(", ")}.` : "Bitti: değişen bir şey yok.";
  return [note(text), ...(result.skipped_count ? [note(`${result.skipped_count} dosya okunamadı.`, "warning")] : [])];
}

function skipped(files, count) {
  if (!files.length) return [];
  const rest = count - files.length;
  return [
    h("h2", {}, "Dizine alınamayan dosyalar"),
    h("ul", { class: "folders" }, files.map(([file, why]) => h("li", {}, h("p", {}, icon("warn"), h("span", {}, file, h("small", {}, why)))))),
    rest > 0 ? h("p", { class: "lead" }, `Ve ${rest.toLocaleString("tr")} dosya daha.`) : "",
  ];
}

// Classify, compare, about

export function showClassify(current) {
  const image = picker({ label: "Resim seç" });
  const labels = h("textarea", { rows: 3, maxlength: 8000 });
  labels.value = "kedi, köpek, araba|otomobil";
  const place = h("div", {});
  const form = h(
    "form",
    { class: "form two", "aria-label": "Sınıflandır" },
    image.element,
    field("Etiketler", labels, "Virgülle ya da ayrı satırlara; eş anlamlılar arasına | koyun"),
    h("div", { class: "row wide" }, h("button", { class: "button primary", id: "classify" }, icon("tag"), "Sınıflandır")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answerInto(place, current, "Resme bakılıyor…", () => ask("classify", { image: image.value[0]?.id ?? "", labels: labels.value }), (found) => [
      ...found.notes.map((text) => note(text, "warning")),
      h("h2", {}, "Olasılıklar"),
      h("ul", { class: "bars" }, found.labels.map(({ label, probability, text }) => {
        const fill = h("i", {});
        fill.style.width = `${100 * probability}%`;
        return h("li", {}, h("div", {}, h("strong", {}, label), h("span", {}, text)), h("div", { class: "track", "aria-hidden": "true" }, fill));
      })),
    ]);
  });
  main.replaceChildren(title("Sınıflandır"), h("p", { class: "lead" }, "Bir resme etiketlerinizden hangisinin en çok yakıştığını söyler. Hiçbiri uymasa da olasılıkların toplamı %100'dür."), ...modelNotes(), form, place);
}

export function showCompare(current) {
  const chosen = picker({ label: "Resimler seç", multiple: true, most: 20 });
  const texts = h("textarea", { rows: 4, maxlength: 15000, placeholder: "Her satıra bir metin" });
  const place = h("div", {});
  const form = h(
    "form",
    { class: "form two", "aria-label": "Karşılaştır" },
    chosen.element,
    field("Metinler", texts, "Her satıra bir tane, en çok 30"),
    h("div", { class: "row wide" }, h("button", { class: "button primary", id: "compare" }, icon("table"), "Karşılaştır")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const shown = [...chosen.value];
    answerInto(place, current, "Karşılaştırılıyor…", () => ask("compare", { images: shown.map((one) => one.id), texts: texts.value }), (found) => [
      ...found.notes.map((text) => note(text, "warning")),
      h("h2", {}, "Benzerlik puanları"),
      h("p", { class: "lead" }, "★ her metne en yakın resim. Puanlar kosinüs benzerliğidir, olasılık değildir."),
      scrollable(h(
        "table",
        { id: "scores" },
        h("thead", {}, h("tr", {}, h("td", {}), found.texts.map((text) => h("th", { scope: "col" }, h("span", {}, text))))),
        h("tbody", {}, found.scores.map((scores, place_) => h(
          "tr",
          {},
          h("th", { scope: "row" }, picture(shown[place_])),
          scores.map((score, column) => {
            const cell = h("td", {}, found.best[column] === place_ ? `${score} ★` : score);
            const shade = found.shades[place_][column];
            cell.style.background = `rgb(26 95 180 / ${shade < 0.5 ? shade * 0.5 : 0.8 + 0.2 * shade})`;
            if (shade >= 0.5) cell.style.color = "#fff";
            return cell;
          }),
        ))),
      ), "Benzerlik puanları"),
    ]);
  });
  main.replaceChildren(title("Karşılaştır"), h("p", { class: "lead" }, "Resimlerle metinleri karşılaştırır: her metne hangi resim en yakın?"), ...modelNotes(), form, place);
}

export async function showDraw(current) {
  const words = h("input", { type: "text", maxlength: 500, placeholder: "ör. gece mavi bir balık", required: true });
  const without = h("input", { type: "text", maxlength: 500, placeholder: "ör. kırmızı, ağaç" });
  const place = h("div", {});
  const work = h("div", {});
  const start = h("button", { class: "button primary", id: "draw" }, icon("brush"), "Çiz");
  const form = h(
    "form",
    { class: "form two", "aria-label": "Çiz" },
    field("Ne çizilsin?", words),
    field("Ne görünmesin?", without, "Virgülle ayırın; boş kalabilir"),
    h("div", { class: "row" }, start),
  );
  let seed = 0;
  const draw = (result, done) => {
    if (!result?.image) return;
    const address = `drawn/${result.image}`;
    const old = place.querySelector("img");
    if (old && !done) {
      old.src = address;
      return;
    }
    place.replaceChildren(
      h(
        "figure",
        { class: "drawn" },
        h("img", { src: address, alt: done ? `Çizim: ${result.words}` : "Çizimin şimdiki hali" }),
        done ? h("figcaption", {}, h("strong", {}, result.words), ` Görüntü modelinin puanı: ${result.score}`) : null,
      ),
      ...(done ? result.notes.map((text) => note(text, "warning")) : []),
      done ? h("div", { class: "row" }, h("a", { class: "button", href: address, download: "cizim.png" }, icon("download"), "İndir"), h("button", { class: "button", type: "button", onclick: () => form.requestSubmit() }, "Başka türlü çiz")) : "",
    );
  };
  const watch = async (asked = false) => {
    try {
      const job = await follow("draw", (one) => {
        showJob(work, one, "Çiziliyor", start, asked);
        if (one.state) draw(one.result, one.state === "done");
      }, current);
      if (job?.state === "done") say("Çizim hazır.");
    } catch (error) {
      if (current()) complain(work, error);
    }
    start.disabled = false;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      place.replaceChildren();
      await ask("draw", { words: words.value, without: without.value, seed: seed++ });
      await watch(true);
      if (current()) reveal(place);
    } catch (error) {
      if (current()) complain(work, error);
    }
  });
  main.replaceChildren(
    title("Çiz"),
    h("p", { class: "lead" }, "Sözlerinizden bir resim yapar: görüntü modeli sözleri gördüğünü söyleyene kadar resmi değiştirir. Model yanılabilir; resim sözleri her zaman göstermez."),
    ...modelNotes(),
    form,
    work,
    place,
  );
  await watch();
}

async function answerInto(place, current, waiting, load, draw) {
  const again = () => answerInto(place, current, waiting, load, draw);
  place.replaceChildren(h("div", { class: "progress" }, h("p", {}, waiting), h("progress", { "aria-label": waiting })));
  say(waiting);
  try {
    const found = await load();
    if (!current()) return;
    place.replaceChildren(...draw(found));
    reveal(place);
    say("Sonuçlar hazır.");
  } catch (error) {
    if (current()) complain(place, error, again);
  }
}

export async function showAbout(current) {
  const place = h("div", {});
  main.replaceChildren(title("Hakkında"), ...modelNotes(), place);
  place.replaceChildren(h("p", { class: "lead" }, "Bilgiler geliyor…"));
  const load = async () => {
    try {
      const rows = await ask("about");
      if (current()) place.replaceChildren(...told(rows));
    } catch (error) {
      if (current()) place.replaceChildren(failed(error, load));
    }
  };
  await load();
}

function told(rows) {
  return [
    h("div", { class: "about" }, h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
    h("p", { class: "lead" }, "Puanlar kosinüs benzerliğidir, olasılık değildir; sözle aramada her söze yakın düşen resimler geriye alınabilir. Bir filtre ya da sınıflandırıcı yanılabilir: sonuçları gözden geçirmeden kullanmayın. Fotoğraflar bu makineden çıkmaz."),
  ];
}
