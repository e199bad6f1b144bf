"""Base requests of the generated IFEval-format prompts: one a line, with three words of its subject after the bar.

Every fourth request, and every fourth question, belongs to the test part. Add new ones at the end: an insertion in the
middle of a list would move the split.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Request(NamedTuple):
    """A task in one sentence, and words that an answer to it would naturally use."""

    text: str
    words: tuple[str, ...]


_REQUESTS = """\
Explain why leaves change colour in autumn. | autumn sunlight tree
Describe how bread is made at home. | flour oven dough
Write a short note to a neighbour who watered your plants. | garden thanks holiday
Give advice to someone who starts a new job on Monday. | colleague office question
Tell a story about a lighthouse keeper. | storm ship lamp
Explain what a library does for a town. | book reader shelf
Describe a walk through a forest after rain. | path moss puddle
Write an invitation to a birthday picnic. | park cake friend
Explain how a bicycle stays upright. | wheel balance speed
Recommend three things to pack for a mountain hike. | boots water map
Write a review of a small coffee shop. | coffee table music
Explain why people keep cats. | cat house company
Describe the life cycle of a butterfly. | egg caterpillar wing
Write a letter of complaint about a late parcel. | parcel delivery refund
Explain how rain forms. | cloud drop vapour
Give tips for learning a new language. | practice word listen
Tell a story about a lost key. | door pocket search
Describe the job of a nurse. | patient hospital shift
Write a speech for the opening of a school garden. | pupils seeds spring
Explain why we sleep. | brain night rest
Describe a market on a Saturday morning. | stall fruit crowd
Write a message to a friend who passed an exam. | exam proud effort
Explain how a compass works. | needle north magnet
Give advice on saving money as a student. | budget rent plan
Tell a story about two brothers and a boat. | river oar brother
Describe how cheese is produced. | milk farm cellar
Write an advertisement for a second-hand piano. | piano price sound
Explain what causes the tides. | moon ocean gravity
Describe your ideal weekend in the countryside. | field village morning
Write a thank-you note to a teacher. | lesson class patience
Explain how vaccines protect people. | virus body dose
Give reasons to learn to cook. | kitchen meal health
Tell a story about a robot that paints. | robot colour canvas
Describe the view from a hilltop at sunset. | sky valley light
Write a notice about a lost dog. | dog collar street
Explain how a camera takes a picture. | lens light film
Give tips for speaking in front of a group. | voice audience breath
Describe a day in the life of a baker. | bread dawn customer
Write a plan for cleaning a garage. | box tools dust
Explain why the sky looks blue. | sky sunlight air
Tell a story about a train that never stops. | train window stranger
Describe how honey is made. | bee hive flower
Write an email that asks for a day off. | manager friday request
Explain how a bill becomes a law. | vote parliament debate
Give advice to a first-time gardener. | soil seed water
Describe a winter evening at home. | fire snow blanket
Write a short biography of an invented explorer. | map island voyage
Explain what inflation means. | price money wage
Give three ideas for a rainy afternoon with children. | game paper story
Tell a story about a clock that runs backwards. | clock time town
Describe how glass is recycled. | bottle furnace waste
Write a poem about the sea. | wave shore salt
Explain how plants drink. | root stem water
Give tips for writing a good summary. | text idea sentence
Describe the rules of a game you know. | player turn card
Write a product description for a rain jacket. | rain zip pocket
Explain why volcanoes erupt. | magma pressure rock
Tell a story about a bird that is afraid to fly. | bird nest wind
Describe a busy airport. | plane queue passport
Write a letter to your future self. | year hope dream
Explain how a battery stores energy. | charge metal current
Give advice on choosing a pet. | animal home care
Describe how a song becomes popular. | radio song listener
Write a short report on a school trip to a museum. | museum guide painting
Explain how the heart works. | blood heart muscle
Give reasons to walk to work. | walk city health
Tell a story about an honest thief. | thief gold promise
Describe a traditional wedding. | music family dance
Write a welcome message for a new neighbour. | street house help
Explain what a budget is. | income cost month
Give tips for taking care of houseplants. | light pot leaf
Describe the work of a firefighter. | smoke rescue ladder
Write a dialogue between a cat and a mouse. | cheese trap friend
Explain how bridges carry weight. | beam river load
Tell a story about the last day of summer. | beach sand goodbye
Describe how a newspaper is made. | editor printer news
Write an apology for missing a meeting. | meeting traffic sorry
Explain why the seasons change. | earth orbit tilt
Give advice to a nervous driver. | road car mirror
Describe a garden at night. | moon owl shadow
Write a pitch for an app that finds quiet places. | phone noise city
Explain how soap cleans hands. | grease water foam
Give three reasons to read old books. | history author page
Tell a story about a baker and a king. | crown bread palace
Describe the sounds of a city street. | horn voice bus
Write a recipe for a simple vegetable soup. | onion pot salt
Explain how email reaches another computer. | server network message
Give tips for a good night of sleep. | bed screen dark
Describe a desert and its animals. | sand heat lizard
Write a letter that recommends a hard-working student. | student project talent
Explain what a fossil is. | bone stone layer
Tell a story about a message in a bottle. | bottle beach letter
Describe how chocolate is made. | cocoa sugar bean
Write a short announcement about a road closure. | bridge detour repair
Explain why exercise is good for the mind. | mood stress run
Give advice on how to make new friends. | club talk smile
Describe an old clock tower. | bell stone stairs
Write a summary of a detective story you invent. | detective clue murder
Explain how wind turbines make electricity. | blade wind generator
Give ideas for a cheap family holiday. | tent lake train
Tell a story about a violin without strings. | violin music workshop
Describe the first day of school. | teacher desk friend
Write a complaint about a noisy hotel room. | noise room sleep
Explain how a zip fastener works. | teeth slider fabric
Give tips for growing tomatoes. | tomato sun stake
Describe the taste of your favourite fruit. | sweet juice summer
Write a short play set in a lift. | door button silence
Explain why metal rusts. | iron oxygen water
Tell a story about a giant who knits. | wool giant village
Describe how a film is made. | camera actor scene
Write an invitation to a book club. | novel evening tea
Explain how a thermometer measures temperature. | liquid heat scale
Give advice on moving to a new city. | flat map neighbour
Describe a stormy night at sea. | wave captain sail
Write a farewell note to a colleague. | office luck memory
Explain what a habit is and how it starts. | habit cue reward
Give three tips for a job interview. | question answer suit
Tell a story about a snowman who travels. | snow train scarf
Describe how paper is made. | wood pulp water
Write a text for a poster about saving water. | tap shower river
Explain how bats find their way. | echo sound cave
Give reasons to keep a diary. | diary thought day
Describe a circus that comes to town. | tent clown horse
Write a letter to the mayor about a broken playground. | swing children repair
Explain how the internet changed shopping. | shop order price
Tell a story about a farmer and a dragon. | dragon barn fire
Describe the work of an archaeologist. | brush ruin past
Write a slogan and a paragraph for a bicycle shop. | bike repair ride
Explain why bees matter. | bee flower crop
Give advice on writing a letter by hand. | pen paper ink
Describe a train journey across a plain. | window field station
Write a fable about a proud fox. | fox lesson forest
Explain how a submarine dives. | tank water pressure
Give tips for staying calm before a test. | breath test sleep
Describe a kitchen in the morning. | kettle bread sun
Write an obituary for an imaginary inventor. | invention life workshop
Explain what makes a good leader. | trust team decision
Tell a story about a door in a tree. | tree door secret
Describe how a carpet is woven. | loom thread pattern
Write a weather report for an invented island. | wind rain island
Explain how money was invented. | coin trade market
Give ideas for presents that cost nothing. | time song help
Describe a football match from the side of a fan. | goal team whistle
Write a diary entry of a ship's cook. | soup sailor storm
Explain how mountains form. | plate rock pressure
Give advice to parents of a shy child. | child play patience
Tell a story about a town without colours. | town paint grey
Describe an orchestra before a concert. | violin hall conductor
Write a guide for a visitor to your home town. | square river bakery
Explain how a telescope works. | mirror star lens
Give tips for repairing a torn shirt. | needle thread button
Describe the smell of a forest. | pine earth rain
Write a short essay on the value of friendship. | friend trust time
Explain why ice floats. | ice water density
"""

_QUESTIONS = """\
Is it a good idea to drink coffee late in the evening?
Can a person learn to swim as an adult?
Is the moon bigger than the earth?
Do cats need company during the day?
Should children have homework every day?
Is it possible to bake bread without an oven?
Are whales mammals?
Will it rain somewhere in the world tomorrow?
Is chess harder than draughts?
Can plants grow without soil?
Should every town have a library?
Is glass made from sand?
Do penguins live at the North Pole?
Is a tomato a fruit?
Should I learn to play the piano first?
Can you see stars during the day?
Is walking a form of exercise?
Do fish sleep?
Is it rude to arrive early to a dinner?
Are all spiders dangerous?
Should shops close on Sundays?
Is gold heavier than iron?
Can a dog understand words?
Is silence better than music while reading?
Is the sun a star?
Do trees communicate with each other?
Should a letter always be answered?
Is honey sweeter than milk?
Can people live on Mars today?
Is a whale a kind of fish?
Should everyone learn to cook?
Do birds remember faces?
Is water heavier than oil?
Can money buy happiness?
Is a triangle a shape with four sides?
Are old books more interesting than new ones?
Should a museum be free of charge?
Is the ocean salty?
Do people dream every night?
Can a bicycle be faster than a car in a city?
"""


def _part(lines: list[str], part: Literal["train", "test"]) -> list[str]:
    return [line for place, line in enumerate(lines) if (place % 4 == 3) == (part == "test")]


def requests(part: Literal["train", "test"]) -> list[Request]:
    """The base requests of one part; the two parts share none."""
    split = (line.split(" | ") for line in _part(_REQUESTS.splitlines(), part))
    return [Request(text, tuple(words.split())) for text, words in split]


def questions(part: Literal["train", "test"]) -> list[Request]:
    """The yes-no questions of one part, for the instruction that allows three answers only."""
    return [Request(text, ()) for text in _part(_QUESTIONS.splitlines(), part)]
