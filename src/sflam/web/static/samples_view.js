/** The samples as the page shows them: buttons of the classes, pictures small, and counts. */

/**
 * @param {HTMLElement} room takes a button for each class
 * @param {string[]} classes
 * @param {(label: number) => void} chosen
 */
export function showClasses(room, classes, chosen) {
  room.replaceChildren(
    ...classes.map((name, label) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.setAttribute("aria-pressed", String(label === 0));
      button.addEventListener("click", () => {
        for (const other of room.children) other.setAttribute("aria-pressed", String(other === button));
        chosen(label);
      });
      return button;
    }),
  );
  chosen(0);
}

/** @param {import("./samples/pixels.js").Picture} picture @returns {HTMLCanvasElement} */
function thumbnail({ height, width, channels, pixels }) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[i * channels + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  canvas.className = "thumb";
  canvas.title = `${width} x ${height}`;
  return canvas;
}

/**
 * @param {{count: number, counts: number[], first: number, pictures: any[], labels: number[]}} samples
 * @param {string[]} classes
 * @param {(id: string) => any} at
 * @param {(index: number) => void} remove
 */
export function showSamples({ count, counts, first, pictures, labels }, classes, at, remove) {
  const named = classes.map((name, i) => `${name}: ${counts[i]}`).filter((_, i) => counts[i]);
  at("count").textContent = `${count} ${count === 1 ? "sample" : "samples"}`;
  at("counts").textContent = named.slice(0, 30).join(" · ");
  at("clear").hidden = !count;
  at("pictures").replaceChildren(
    ...pictures
      .map((picture, i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "sample";
        button.setAttribute("aria-label", `remove a picture of ${classes[labels[i]]}`);
        button.append(thumbnail(picture), classes[labels[i]]);
        button.addEventListener("click", () => remove(first + i));
        return button;
      })
      .reverse(),
  );
}
