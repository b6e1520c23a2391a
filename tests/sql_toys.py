"""A small MySQL dump of two databases, for the tests of InterCode-SQL."""

# ruff: noqa: E501 (a statement stays on one line)

import json
from pathlib import Path

DUMP = r"""
CREATE USER 'admin'@'%' IDENTIFIED BY 'admin';
CREATE DATABASE  IF NOT EXISTS `shop` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci */;
USE `shop`;

/*!40101 SET NAMES utf8 */;
DROP TABLE IF EXISTS `Customer`;
CREATE TABLE `Customer` (
  `ID` int NOT NULL AUTO_INCREMENT,
  `Name` varchar(50) COLLATE utf8mb4_general_ci DEFAULT NULL,
  `City` text COLLATE utf8mb4_general_ci,
  `Born` date DEFAULT NULL,
  `Height` float(4,1) DEFAULT NULL,
  `Weight` float DEFAULT NULL,
  PRIMARY KEY (`ID`)
) ENGINE=InnoDB AUTO_INCREMENT=6 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
LOCK TABLES `Customer` WRITE;
/*!40000 ALTER TABLE `Customer` DISABLE KEYS */;
INSERT INTO `Customer` VALUES (1,'Anna','Bern','1990-05-01',171.5,60.25),(2,'bob','Basel',NULL,180.0,81.1),(3,'Zoë','bern','2001-12-31',165.3,NULL),(4,'O\'Neil','Genève ','1975-07-15',NULL,70),(5,'anna ',NULL,'1990-05-01',171.5,59.9);
/*!40000 ALTER TABLE `Customer` ENABLE KEYS */;
UNLOCK TABLES;

CREATE TABLE `purchase` (
  `purchase_id` int NOT NULL AUTO_INCREMENT,
  `customer_id` int DEFAULT NULL,
  `item` varchar(20) COLLATE utf8mb4_general_ci NOT NULL DEFAULT '',
  `price` decimal(10,2) DEFAULT NULL,
  `amount` int NOT NULL DEFAULT '1',
  `bought` datetime DEFAULT NULL,
  `rating` double DEFAULT NULL,
  PRIMARY KEY (`purchase_id`),
  KEY `customer_id` (`customer_id`),
  CONSTRAINT `fk` FOREIGN KEY (`customer_id`) REFERENCES `Customer` (`ID`)
) ENGINE=InnoDB AUTO_INCREMENT=8 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
INSERT INTO `purchase` VALUES (1,3,'cup',4.50,2,'2020-01-02 10:00:00',3.5),(2,1,'plate',12.00,1,'2020-01-02 11:30:00',NULL),(3,3,'Cup',4.50,1,'2020-02-29 00:00:00',4),(4,2,'spoon',1.25,6,NULL,0.1),(5,NULL,'fork',1.25,6,'2021-06-01 08:15:30',0.2),(6,1,'bowl',NULL,1,'2021-06-02 09:00:00',5),(7,2,'cup',5.00,3,'2021-06-03 09:00:00',2.5);

CREATE TABLE `empty_one` (
  `code` char(3) COLLATE utf8mb4_general_ci NOT NULL DEFAULT '',
  `note` text COLLATE utf8mb4_general_ci
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE DATABASE IF NOT EXISTS `zoo`;
USE `zoo`;
CREATE TABLE `animal` (
  `name` varchar(255) COLLATE utf8mb4_general_ci NOT NULL,
  `keeper` varchar(255) COLLATE utf8mb4_general_ci NOT NULL,
  `legs` int DEFAULT NULL,
  `seen` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  PRIMARY KEY (`name`,`keeper`),
  UNIQUE KEY `legs_once` (`legs`),
  KEY `keeper` (`keeper`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
INSERT INTO `animal` VALUES ('owl','Ann',2,'2020-01-01 00:00:00'),('cat','Bob',4,'2020-01-02 00:00:00'),('ant','Ann',6,'2020-01-03 00:00:00');
"""

TASKS = [
    ("shop", "How many customers are there?", "SELECT count(*) FROM Customer", "easy"),
    ("shop", "What are the names of the customers, by age?", "SELECT Name FROM Customer WHERE Born IS NOT NULL ORDER BY Born", "medium"),
    ("shop", "What did each customer pay?", "SELECT T1.Name, sum(T2.price * T2.amount) FROM Customer AS T1 JOIN purchase AS T2 ON T1.ID = T2.customer_id GROUP BY T1.ID", "hard"),
    ("zoo", "Which animals have more than two legs?", "SELECT name FROM animal WHERE legs > 2", "easy"),
    ("zoo", "A question with a broken answer?", "SELECT nothing FROM animal", "easy"),
    ("shop", "How many customers does the shop have?", "SELECT  COUNT(*)  FROM customer ;", "easy"),
    ("shop", "Who bought nothing?", "SELECT Name FROM Customer WHERE ID NOT IN (SELECT customer_id FROM purchase)", "hard"),
]  # fmt: skip


def write_dump(folder: Path) -> Path:
    file = folder / "ic_spider_dbs.sql"
    file.write_text(DUMP, encoding="utf-8")
    return file


def write_data(folder: Path, test: int = 2) -> Path:
    """A folder as `rro data fetch` leaves it; the first `test` valid tasks are for testing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_dump(folder)
    entries = [dict(zip(("db", "query", "gold", "hardness"), task, strict=True)) for task in TASKS]
    (folder / "ic_spider_dev.json").write_text(json.dumps(entries), encoding="utf-8")
    valid = [number for number in range(len(TASKS)) if number != 4]
    splits = {"test_dev_indices": valid[:test], "nontest_dev_indices": valid[test:]}
    (folder / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder
