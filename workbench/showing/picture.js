// Draws one plane: grey values under the window, segments over them, lines of the other planes, a scale.

function curve() {
  // From values to 0..255, by VOILUTFunction: DICOM PS3.3 section C.11.2.1.2.1 and C.11.2.1.3.
  const { centre, width } = state;
  if (state.curve === "SIGMOID") return (value) => 255 / (1 + Math.exp((-4 * (value - centre)) / width));
  const exact = state.curve === "LINEAR_EXACT";
  const span = exact ? width : Math.max(width - 1, 1e-6);
  const low = centre - (exact ? 0 : 0.5) - span / 2;
  return (value) => Math.min(255, Math.max(0, ((value - low) * 255) / span));
}

function fill(view) {
  const [columns, rows] = [view.grey.width, view.grey.height];
  const grey = curve();
  const context = view.grey.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let v = 0, p = 0; v < rows; v++) {
    let at = state.place[view.across] * step[view.across] + (view.upwards ? rows - 1 - v : v) * step[view.down];
    for (let h = 0; h < columns; h++, p++, at += step[view.right]) {
      let level = grey(voxels[at]) | 0;
      if (state.inverted) level = 255 - level;
      pixels[p] = 0xff000000 | (level << 16) | (level << 8) | level;
    }
  }
  context.putImageData(image, 0, 0);
}

function cover(view) {
  const [columns, rows] = [view.colour.width, view.colour.height];
  const context = view.colour.getContext("2d");
  context.clearRect(0, 0, columns, rows);
  if (!about.layers) return;
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  layers.forEach((layer, which) => {
    const palette = new Uint32Array(256);
    about.segments.forEach((one, i) => {
      const [red, green, blue] = one.colour;
      if (one.layer === which && state.visible[i]) palette[one.value] = 0xff000000 | (blue << 16) | (green << 8) | red;
    });
    for (let v = 0, p = 0; v < rows; v++) {
      let at = state.place[view.across] * step[view.across] + (view.upwards ? rows - 1 - v : v) * step[view.down];
      for (let h = 0; h < columns; h++, p++, at += step[view.right]) {
        if (palette[layer[at]]) pixels[p] = palette[layer[at]];
      }
    }
  });
  context.putImageData(image, 0, 0);
}

function frame(view) {
  // Where the picture lies on the canvas, in CSS pixels.
  const [width, height] = [view.canvas.clientWidth, view.canvas.clientHeight];
  const mm = [view.grey.width * about.spacing[view.right], view.grey.height * about.spacing[view.down]];
  const scale = Math.min(width / mm[0], height / mm[1]) * state.zoom;
  const left = width / 2 + (state.move[view.right] - mm[0] / 2) * scale;
  const top = height / 2 + (state.move[view.down] * (view.upwards ? -1 : 1) - mm[1] / 2) * scale;
  return { left, top, width: mm[0] * scale, height: mm[1] * scale, scale };
}

function draw(view) {
  const context = view.canvas.getContext("2d");
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [view.canvas.clientWidth, view.canvas.clientHeight];
  if (!width || !height) return;
  if (view.canvas.width !== Math.round(width * ratio)) view.canvas.width = Math.round(width * ratio);
  if (view.canvas.height !== Math.round(height * ratio)) view.canvas.height = Math.round(height * ratio);
  const slice = state.place[view.across];
  const drawn = [slice, state.centre, state.width, state.curve, state.inverted].join();
  if (drawn !== view.drawn) fill(view);
  view.drawn = drawn;
  const covered = [slice, ...state.visible].join();
  if (covered !== view.covered) cover(view);
  view.covered = covered;
  const at = frame(view);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(view.grey, at.left, at.top, at.width, at.height);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = state.opacity;
  context.drawImage(view.colour, at.left, at.top, at.width, at.height);
  context.globalAlpha = 1;
  if (byId("cross").checked) lines(view, context, at);
  bar(context, at.scale, width, height);
}

function lines(view, context, at) {
  const row = state.place[view.down];
  const x = at.left + ((state.place[view.right] + 0.5) / view.grey.width) * at.width;
  const y = at.top + (((view.upwards ? view.grey.height - 1 - row : row) + 0.5) / view.grey.height) * at.height;
  context.strokeStyle = "rgba(124, 196, 255, .55)";
  context.beginPath();
  context.moveTo(x, at.top);
  context.lineTo(x, at.top + at.height);
  context.moveTo(at.left, y);
  context.lineTo(at.left + at.width, y);
  context.stroke();
}

function bar(context, scale, width, height) {
  const mm = [100, 50, 20, 10, 5, 2, 1].find((one) => one * scale < width / 3) || 1;
  context.fillStyle = "#ffd95a";
  context.fillRect(8, height - 10, mm * scale, 2);
  context.font = "12px system-ui, sans-serif";
  context.fillText(`${mm} mm`, 8, height - 14);
}
