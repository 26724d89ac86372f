"""Words that a description of an image may keep: what was imaged, how, and with what. English, and Latin
anatomy.

Everything else is dropped: names, places, numbers without a unit, dates, abbreviations of a hospital's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection

WORDS = frozenset(
    """
    abdomen abdominal adrenal ankle aorta aortic appendix arm artery arterial arteries atrium axilla
    axillary back biceps bile biliary bladder body bone bowel brachial brain brainstem breast bronchi
    bronchus calcaneus calf cardiac carotid carpal cava cavity cecum celiac cerebellum cerebral cervical
    cervix chest clavicle coccyx colon coronary cortex cranial cranium cord diaphragm disc duct duodenum
    ear elbow esophagus extremity extremities eye eyes face facial femoral femur fibula finger fingers
    foot forearm gallbladder gland glands gluteus groin hand hands head heart hepatic hip hips humerus
    iliac iliopsoas ileum inguinal jaw jejunum joint joints kidney kidneys knee knees larynx leg legs
    ligament liver lobe lower lumbar lung lungs lymph mandible maxilla mediastinum meniscus muscle
    myocardium nasal neck nerve node nodes nose oral orbit orbits organ organs ovary pancreas parotid
    patella pelvis pelvic penis pericardium peritoneum pharynx pituitary placenta pleura pleural popliteal
    portal prostate pulmonary radius rectum renal retina rib ribs sacrum sacroiliac scalp scapula scrotum
    shoulder shoulders sinus sinuses skeleton skin skull spinal spine spleen splenic sternum stomach
    subclavian temporal tendon testis thigh thoracic thorax throat thumb thymus thyroid tibia toe toes
    tongue tonsil trachea trunk ulna ureter urethra urinary uterus vagina vascular vein veins ventricle
    vertebra vertebrae vessel vessels whole wrist
    abscess aneurysm atelectasis bleed calcification calcium cancer carcinoma cirrhosis consolidation
    covid cyst cysts edema effusion embolism emphysema fibrosis fracture hemorrhage hernia infarct
    infarction lesion lesions mass metastases metastasis metastatic nodule nodules pneumonia pneumothorax
    stenosis stone stones stroke thrombosis tumor tumors tumour gtv ctv ptv itv oar
    adc angio angiography angiogram apparent arthrogram asl attenuation axial bffe biopsy bold breathhold
    bravo bss calc cardiac cbct ce cine ciss clinical coefficient composite contrast cor coronal corrected
    cr ct cta ctpa cube cxr delayed dce decubitus derived dess diff diffusion dixon dose dti dual dwi dx
    dynamic early ecg echo edge enhanced enhancement epi equilibrium exam excretory exp expiration
    expiratory fat fatsat fdg fiesta field filter filtered fl flair flash flow fluid fluoro fluoroscopy
    fmri fov fs fsat fse functional gad gadolinium gated gating gd gradient gre grid guided haste hd
    helical high hr hrct images image imaging in inspiration inspiratory intracranial inversion iodine ir
    iso isotropic iv ivp kernel keyhole kub kv late lateral lava left localiser localizer long loop low lt
    mag magnetization magnitude mammo mammogram mammography map maps mask max maximum mean medium mip min
    minimum minip mdct mpr mprage mr mra mri mrcp mrv multiphase myelogram nac native nephrographic non
    noncontrast opposed oblique out pa ap pancreatic parallel parametric pc pd perf perfusion pet petct
    phantom phase phases pilot planning plain plane planes portable portovenous post postcontrast pre
    precontrast processed projection prone proton protocol psir quiet radial radiograph radiography recon
    reconstruction reformat reformatted registered registration resolution rest resting restore right
    rotation routine rt sag sagittal saturation scan scanogram scout screening se sections segmentation
    segmented sequence series shim short single slab slice slices smooth soft space spair spect spgr
    spiral spin spir sequential standard standing star steady state std stir stress study subtraction
    supine suppressed suppression surview susceptibility swi swap t1w t2w tfe thick thickness thin three
    time tissue tirm tof tomo tomography tomosynthesis topogram trace transverse tra trufi true tse turbo
    two ultrafast ultrasound unenhanced upper upright us ute venous vibe view views virtual volume vrt
    volumetric water wb weighted window wo with without w woc xa ray xray zoom
    adult barium cardiology emergency followup infant iohexol iodixanol iopamidol iopromide iomeprol
    isovue omnipaque visipaque ultravist gadavist gadovist magnevist dotarem gadobutrol gadoterate
    multihance eovist primovist fluorodeoxyglucose oral rectal intravenous saline none unknown other
    normal baseline
    acquisition averaged average axis background bilateral boundary central cerebrospinal combined contour
    external frame generated gray grey gross internal label marrow matter model necrosis anterior
    posterior superior inferior medial distal proximal percent peripheral region roi segment set surface
    target tool total transition white wall zone automatic manual threshold algorithm background
    foreground ground truth test structure plan treatment fraction field beam boost
    """.split()  # noqa: SIM905 - read as text
)
"""Lower case, without digits."""

UNITS = frozenset(
    {"mm", "cm", "m", "ms", "sec", "s", "kv", "kvp", "kev", "ma", "mas", "t", "ml", "mg", "hz", "hu", "gy"}
)
"""Written behind a number. No unit of age, date or price."""

_TOKEN = re.compile(r"[^\W_]+(?:\.\d+)?")
_MEASURE = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)([a-z]+)")
_NUMBER = re.compile(r"\d{1,4}(?:\.\d{1,3})?")
_TECHNIQUE = re.compile(
    r"[1-4]d|t[12]|r[12]|[bdhiju][rfv]?\d{2}[fs]?|b0|[1-9]x[1-9]|3t|c[1-7]|l[1-5]|s[1-5]|th?(?:[1-9]|1[0-2])"
)
"""2D and 3D, T1 and T2, reconstruction kernels (B30f, Br40), vertebrae."""


def cleaned(text: str, *, extra: Collection[str], forbidden: Collection[str]) -> str:
    """The words of `text` that may stay, in their order and spelling, one blank between them.

    Args:
        text: A description.
        extra: Further words in lower case that may stay.
        forbidden: Words in lower case that must not, although the vocabulary has them: the patient's names.
    """
    tokens = _TOKEN.findall(text)
    kept: list[str] = []
    for index, token in enumerate(tokens):
        word = token.lower()
        follower = tokens[index + 1].lower() if index + 1 < len(tokens) else ""
        if word in forbidden:
            continue
        measure = _MEASURE.fullmatch(word)
        if (
            word in WORDS
            or word in extra
            or _TECHNIQUE.fullmatch(word)
            or (measure and measure.group(2) in UNITS)
            or (_NUMBER.fullmatch(word) and follower in UNITS and follower not in forbidden)
            or (word in UNITS and kept and kept[-1] is tokens[index - 1] and _NUMBER.fullmatch(kept[-1]))
        ):
            kept.append(token)
    return " ".join(kept)
