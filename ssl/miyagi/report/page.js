for (const table of document.querySelectorAll("table.results")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const body of table.tBodies) sort(body, column, down);
    });
  });
}

// An experiment's seeds and their mean move together; the last of its lines is what it is ranked by.
function sort(body, column, down) {
  const bundles = new Map();
  for (const row of body.querySelectorAll("tr[data-experiment]")) {
    const name = row.dataset.experiment;
    bundles.set(name, [...(bundles.get(name) ?? []), row]);
  }
  const key = rows => {
    const cell = rows.at(-1).cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const known = rows => key(rows) !== "" && !Number.isNaN(key(rows));
  const ordered = [...bundles.values()].sort((a, b) => {
    if (!known(a) || !known(b)) return known(b) - known(a);
    const [x, y] = [key(a), key(b)];
    return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
  });
  for (const rows of ordered) body.append(...rows);
}

// Words that all must occur in what a line says of itself: its experiment, its layer, its table.
const filter = document.getElementById("filter"), found = document.getElementById("found");
filter?.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const table of document.querySelectorAll(".table")) {
    let some = false;
    for (const body of table.querySelectorAll("table.results > tbody")) {
      let any = false;
      for (const row of body.querySelectorAll("tr[data-experiment]")) {
        const about = `${table.dataset.about} ${body.dataset.about} ${row.dataset.about}`.toLowerCase();
        row.hidden = !words.every(word => about.includes(word));
        any ||= !row.hidden;
        shown += !row.hidden;
      }
      body.hidden = !any;
      some ||= any;
    }
    table.hidden = !some;
  }
  found.textContent = words.length ? `${shown} line${shown === 1 ? "" : "s"}` : "";
});

for (const link of document.querySelectorAll(".provenance a")) {
  link.addEventListener("click", () => {
    link.closest("[popover]").hidePopover();
    document.querySelector(link.hash).open = true;
  });
}

const maps = document.getElementById("maps-section"), tip = document.getElementById("tip");
if (maps) {
  const names = [...maps.querySelectorAll(".legend button")];
  const side = 96, columns = 20;
  const show = (point, map) => {
    map.querySelector(".here")?.classList.remove("here");
    point.classList.add("here");
    const number = [...map.children].indexOf(point), box = point.getBoundingClientRect();
    tip.querySelector(".thumb").style.backgroundPosition = `${-side * (number % columns)}px ${-side * Math.floor(number / columns)}px`;
    tip.querySelector(".name").textContent = names[point.dataset.label]?.textContent.trim() ?? `class ${point.dataset.label}`;
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(box.right + 8, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(box.top, innerHeight - tip.offsetHeight - 4))}px`;
  };
  const hide = map => {
    map.querySelector(".here")?.classList.remove("here");
    tip.hidden = true;
  };
  for (const map of maps.querySelectorAll(".map")) {
    map.addEventListener("pointerover", event => event.target.matches("circle") ? show(event.target, map) : hide(map));
    map.addEventListener("pointerleave", () => hide(map));
    map.addEventListener("blur", () => hide(map));
    map.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide(map);
      if (!step) return;
      event.preventDefault();
      const points = [...map.children], here = points.indexOf(map.querySelector(".here"));
      show(points[(here + step + points.length + (here < 0 && step < 0)) % points.length], map);
    });
  }
  for (const button of names) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of names) other.setAttribute("aria-pressed", String(on && other === button));
      for (const point of maps.querySelectorAll("circle")) {
        point.classList.toggle("faded", on && point.dataset.label !== button.dataset.label);
      }
    });
  }
}
